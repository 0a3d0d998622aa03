package proxy

// Sizes of what is lent to connections for as long as they must remember bytes.
const (
	tinyBuffer  = 1152 // most requests; no power of two, at whose multiples all compete for the same few lines of a cache
	smallBuffer = 4 << 10
	largeBuffer = scratchSize + 8<<10 // one scratch and a head
	keepTiny    = 2048                // unused buffers kept per loop
	keepSmall   = 512
	keepLarge   = 32
)

// buffers lends byte slices to the connections of one loop. A connection that remembers nothing holds none.
type buffers struct {
	tiny, small, large [][]byte
}

// get returns an empty slice with room for n bytes at least.
func (p *buffers) get(n int) []byte {
	switch {
	case n <= tinyBuffer:
		if k := len(p.tiny); k > 0 {
			b := p.tiny[k-1]
			p.tiny = p.tiny[:k-1]
			return b
		}
		return make([]byte, 0, tinyBuffer)
	case n <= smallBuffer:
		if k := len(p.small); k > 0 {
			b := p.small[k-1]
			p.small = p.small[:k-1]
			return b
		}
		return make([]byte, 0, smallBuffer)
	case n <= largeBuffer:
		if k := len(p.large); k > 0 {
			b := p.large[k-1]
			p.large = p.large[:k-1]
			return b
		}
		return make([]byte, 0, largeBuffer)
	}
	return make([]byte, 0, n)
}

// put takes a slice back. One that grew beyond its class counts as its class.
func (p *buffers) put(b []byte) {
	switch n := cap(b); {
	case n >= largeBuffer && n <= 2*largeBuffer:
		if len(p.large) < keepLarge {
			p.large = append(p.large, b[:0])
		}
	case n >= smallBuffer && n < largeBuffer:
		if len(p.small) < keepSmall {
			p.small = append(p.small, b[:0])
		}
	case n >= tinyBuffer && n < smallBuffer:
		if len(p.tiny) < keepTiny {
			p.tiny = append(p.tiny, b[:0])
		}
	}
}

// save makes dst, which may be nil, hold b.
func (p *buffers) save(dst, b []byte) []byte {
	if cap(dst) < len(b) {
		if dst != nil {
			p.put(dst)
		}
		dst = p.get(len(b))
	}
	return append(dst[:0], b...)
}
