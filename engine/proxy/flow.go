package proxy

import (
	"syscall"

	"github.com/skeinlb/skein/engine/loop"
)

// spliceFrom is the number of bytes from which on it is cheaper to leave them in the kernel (measured: below, the extra system
// calls cost more than the copy).
const spliceFrom = 16 << 10

// fairTurns bounds the reads of one connection that are served in a row while others wait.
const fairTurns = 16

// A flow moves bytes in one direction, unchanged: a body of known length, one that lasts until the end, or half of a tunnel.
// It starts by copying and turns to splicing when a read shows that there is much.
type flow struct {
	src, dst *conn
	rest     int64 // bytes still to come; -1: until the end
	pipe     *loop.Pipe
	bulk     bool  // splice
	eof      bool  // src has ended
	closed   bool  // and dst has been told (tunnels)
	cut      *conn // the one of the two that was reset; nil: neither (tunnels)
	over     bool  // src has sent more than rest: next is the first byte of it
	next     byte
	more     bool // the last splice took all that it asked for: src has probably more
	last     bool // dst's stream ends with the flow
	moved    int64
}

// outcome is why a flow stopped.
type outcome uint8

const (
	flowDone     outcome = iota // all moved, or src has ended and all is delivered to dst's buffer
	flowRead                    // waits for src
	flowWrite                   // waits for dst
	flowShort                   // src has ended before its time
	flowYield                   // has had its turn; there may be more
	flowSrcError                // src is broken
	flowDstError                // dst is broken
)

// start begins a flow. One of known length splices at once when that is long enough.
func (f *flow) start(src, dst *conn, rest int64) {
	*f = flow{src: src, dst: dst, rest: rest, bulk: rest >= spliceFrom && src.plain() && dst.plain()}
}

// pump moves what can be moved now, but yields after fairTurns: a fast flow must not keep the other connections of its loop
// waiting. Its owner then calls again at the end of the iteration.
func (w *Worker) pump(f *flow) outcome {
	for range fairTurns {
		if f.dst.full {
			return flowWrite
		}
		if f.pipe != nil && f.pipe.Held > 0 {
			more := f.rest > 0 && f.more || f.ends(f.rest)
			f.dst.held = more
			switch _, e := f.pipe.Flush(f.dst.fd, more); {
			case e == syscall.EAGAIN:
				f.dst.full = true
				if !f.dst.watched && !w.watch(f.dst) {
					return flowDstError
				}
				return flowWrite
			case e != 0:
				f.dst.broken = true
				return flowDstError
			}
			continue
		}
		if f.rest == 0 || f.eof {
			return flowDone
		}
		if !f.src.readable {
			return flowRead
		}
		if f.bulk && f.pipe == nil {
			if !w.scarce {
				f.pipe = w.loop.Pipe()
			}
			if f.pipe == nil {
				f.bulk = false // no more descriptors: copy
			}
		}
		var n int
		var st ioState
		if f.bulk {
			n, st = f.fill()
		} else {
			n, st = f.copy(w)
		}
		switch st {
		case ioAgain:
			return flowRead
		case ioEnd:
			f.eof = true
			if f.rest > 0 {
				return flowShort
			}
			return flowDone
		case ioError:
			if f.dst.broken {
				return flowDstError
			}
			return flowSrcError
		}
		f.moved += int64(n)
		if f.rest > 0 {
			f.rest -= int64(n)
		}
	}
	return flowYield
}

// finished says that nothing moves any more (tunnels).
func (f *flow) finished() bool { return f.closed || f.cut != nil }

// fill moves from src into the pipe.
func (f *flow) fill() (int, ioState) {
	want := f.pipe.Size
	if f.rest >= 0 {
		want = int(min(int64(want), f.rest))
	}
	n, e := f.pipe.Fill(f.src.fd, want)
	switch {
	case e == syscall.EAGAIN:
		f.src.readable = false
		return 0, ioAgain
	case e != 0:
		f.src.readable, f.src.ended, f.src.broken = false, true, true
		return 0, ioError
	case n == 0:
		f.src.readable, f.src.ended = false, true
		return 0, ioEnd
	}
	f.more = n == want
	// A splice that moved little leaves the question open whether src is drained: the pipe's slots may have been used up.
	if f.rest < 0 && n < spliceFrom/4 {
		f.bulk = false // a stream that has become a trickle
	}
	return n, ioOK
}

// copy moves from src through the scratch.
func (f *flow) copy(w *Worker) (int, ioState) {
	b := w.in
	if f.rest >= 0 {
		// One byte more than is wanted: to get less than was asked for says that src is drained, which would cost another read.
		b = b[:min(int64(len(b)), f.rest+1)]
	} else if f.src.plain() && f.dst.plain() { // a little, to find out whether to splice
		b = b[:min(len(b), 2*spliceFrom)]
	}
	n, st := f.src.recv(b)
	if st != ioOK {
		return 0, st
	}
	if f.rest >= 0 && int64(n) > f.rest {
		n--
		f.over, f.next = true, b[n]
	}
	if n >= spliceFrom && f.src.plain() && f.dst.plain() && (f.rest < 0 || f.rest-int64(n) >= spliceFrom) {
		f.bulk = true
	}
	return n, w.send(f.dst, b[:n], f.ends(f.rest-int64(n)))
}

// ends says that behind what was read, with rest to come, there is the end of dst's stream, with more before it or not: it goes with the
// last bytes. A source without a length that is known to have ended is read until it says so; it never says "nothing for now".
func (f *flow) ends(rest int64) bool {
	return rest < 0 && f.src.ended || rest == 0 && f.last
}

// stop gives the pipe back.
func (w *Worker) stop(f *flow) {
	if f.pipe != nil {
		w.loop.PutPipe(f.pipe)
	}
	*f = flow{}
}
