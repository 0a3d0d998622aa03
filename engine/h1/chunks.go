package h1

import "strconv"

// Chunks copies a chunked body in canonical form: no extensions, no trailers, sizes without leading zeros, CR LF everywhere.
// Its zero value is at the start of a body.
type Chunks struct {
	Raw  bool  // emit the data alone, for a body that ends with its connection
	Data int64 // bytes of chunk data consumed so far

	state    chunkState
	digits   uint8
	size     int64 // of the chunk at hand; in data: what is missing of it
	overhead int64 // bytes of extensions and trailers that no data has made up for; 0 <= overhead <= maxChunkOverhead
}

// Bounds of the size of a chunk, and of what is read and thrown away beyond what the data makes up for.
//
// A body may be long, and each of its chunks may have an extension, a signature say; who sends a byte of data with a kilobyte of extensions
// has something else in mind. So data pays for extensions, at the rate of Go's net/http (internal/chunked.go, CVE-2023-39326), and nothing
// is saved up for later. Framing is not counted here, and no allowance for it is made. (HAProxy wants the head of a chunk to fit its buffer,
// nginx knows no bound, and neither looks at more than one chunk.)
const (
	maxChunkDigits   = 15
	maxChunkOverhead = 16 << 10
	overheadPerData  = 2 // bytes that a byte of data makes up for
)

type chunkState uint8

const (
	atSize        chunkState = iota // before or among the digits
	afterSize                       // white space before ";"
	atExtName                       // after ";", white space
	inExtName                       //
	afterExt                        // white space after a name: "=", ";" or CR may follow
	atExtValue                      // after "=", white space
	inExtToken                      //
	inExtQuoted                     //
	inExtEscape                     // after "\" within quotes
	afterValue                      // white space after a value, or a closed quote
	atSizeLF                        //
	inData                          //
	atDataCR                        //
	atDataLF                        //
	atTrailer                       // at the start of a trailer line
	inTrailerName                   //
	inTrailerValue
	atTrailerLF
	atLastLF
	chunksDone
)

// Done reports whether the body has ended, its trailers included.
func (c *Chunks) Done() bool { return c.state == chunksDone }

// Copy consumes src and appends what it means to dst: never more than maxChunkDigits+2 bytes beyond what it consumed. It returns how much of src it consumed, which is all of it unless the body ended or is malformed. The chunk that ends
// the body is appended when its last byte has been seen, never before.
func (c *Chunks) Copy(dst, src []byte) (out []byte, n int, err Error) {
	i := 0
	for i < len(src) {
		if c.state == inData {
			k := int(min(int64(len(src)-i), c.size))
			dst = append(dst, src[i:i+k]...)
			i += k
			c.Data += int64(k)
			if c.size -= int64(k); c.size == 0 {
				c.state = atDataCR
			}
			continue
		}
		if c.state == chunksDone {
			break
		}
		b := src[i]
		i++
		if err := c.step(b); err != OK {
			return dst, i, err
		}
		switch {
		case c.Raw:
		case c.state == inData && b == '\n':
			dst = strconv.AppendInt(dst, c.size, 16)
			dst = append(dst, "\r\n"...)
		case c.state == atSize && b == '\n':
			dst = append(dst, "\r\n"...)
		case c.state == chunksDone:
			dst = append(dst, "0\r\n\r\n"...)
		}
	}
	return dst, i, OK
}

// step takes one byte that is not chunk data.
func (c *Chunks) step(b byte) Error {
	switch c.state {
	case atSize:
		return c.stepSize(b)
	case atSizeLF:
		if b != '\n' {
			return BareCR
		}
		c.digits = 0
		c.overhead = max(0, c.overhead-overheadPerData*c.size) // announced, and nothing else is taken before it has come
		if c.state = inData; c.size == 0 {
			c.state = atTrailer
		}
	case atDataCR:
		if b == '\n' {
			return BareLF
		}
		if b != '\r' {
			return BadChunkEnd
		}
		c.state = atDataLF
	case atDataLF:
		if b != '\n' {
			return BareCR
		}
		c.state = atSize
	case atTrailer, inTrailerName, inTrailerValue, atTrailerLF, atLastLF:
		return c.stepTrailer(b)
	default:
		return c.stepExtension(b)
	}
	return OK
}

func (c *Chunks) stepSize(b byte) Error {
	switch {
	case class[b]&isHex != 0:
		if c.digits++; c.digits > maxChunkDigits {
			return BadChunkSize
		}
		c.size = c.size<<4 | int64(unhex(b))
	case c.digits == 0:
		return BadChunkSize
	case b == '\r':
		c.state = atSizeLF
	case b == '\n':
		return BareLF
	case b == ';':
		c.state = atExtName
	case b == ' ' || b == '\t':
		c.state = afterSize
	default:
		return BadChunkSize
	}
	return OK
}

// stepExtension checks chunk extensions (RFC 9112 7.1.1): *( BWS ";" BWS name [ BWS "=" BWS value ] ). Nobody needs them, and
// what they hold is only safe to drop while it is what it seems.
func (c *Chunks) stepExtension(b byte) Error {
	if c.overhead++; c.overhead > maxChunkOverhead {
		return ChunkOverhead
	}
	if b == '\n' {
		return BareLF
	}
	space := b == ' ' || b == '\t'
	token := class[b]&isToken != 0
	switch c.state {
	case atExtName:
		switch {
		case token:
			c.state = inExtName
		case !space:
			return BadChunkExtension
		}
	case atExtValue:
		switch {
		case token:
			c.state = inExtToken
		case b == '"':
			c.state = inExtQuoted
		case !space:
			return BadChunkExtension
		}
	case inExtQuoted:
		switch {
		case b == '"':
			c.state = afterValue
		case b == '\\':
			c.state = inExtEscape
		case b < 0x20 && b != '\t' || b == 0x7f:
			return BadChunkExtension
		}
	case inExtEscape:
		if b < 0x20 && b != '\t' || b == 0x7f {
			return BadChunkExtension
		}
		c.state = inExtQuoted
	default: // afterSize, inExtName, afterExt, inExtToken, afterValue
		return c.extensionEnd(b, space, token)
	}
	return OK
}

// extensionEnd takes a byte where an extension, or the white space before one, may end.
func (c *Chunks) extensionEnd(b byte, space, token bool) Error {
	named := c.state == inExtName || c.state == afterExt
	switch {
	case token && (c.state == inExtName || c.state == inExtToken):
	case space && c.state == inExtName:
		c.state = afterExt
	case space && c.state == inExtToken:
		c.state = afterValue
	case space:
	case b == '=' && named:
		c.state = atExtValue
	case b == ';':
		c.state = atExtName
	case b == '\r' && c.state != afterSize: // white space at the end of a size line is what smugglers send
		c.state = atSizeLF
	default:
		return BadChunkExtension
	}
	return OK
}

// stepTrailer checks trailer lines as strictly as header lines. They are dropped: nobody asked for them.
func (c *Chunks) stepTrailer(b byte) Error {
	if c.overhead++; c.overhead > maxChunkOverhead {
		return ChunkOverhead
	}
	switch c.state {
	case atTrailer:
		switch {
		case b == '\r':
			c.state = atLastLF
		case b == '\n':
			return BareLF
		case class[b]&isToken == 0:
			return BadTrailer
		default:
			c.state = inTrailerName
		}
	case inTrailerName:
		if b == ':' {
			c.state = inTrailerValue
		} else if class[b]&isToken == 0 {
			return BadTrailer
		}
	case inTrailerValue:
		switch {
		case b == '\r':
			c.state = atTrailerLF
		case b == '\n':
			return BareLF
		case b < 0x20 && b != '\t' || b == 0x7f:
			return BadTrailer
		}
	case atTrailerLF:
		if b != '\n' {
			return BareCR
		}
		c.state = atTrailer
	case atLastLF:
		if b != '\n' {
			return BareCR
		}
		c.state = chunksDone
	}
	return OK
}
