package h1

import (
	"bytes"
	"encoding/binary"
)

// Response is a parsed response head. Its zero value is ready for Parse; use one per connection and again for every response.
type Response struct {
	Head
	Status int
	Reason []byte // may be empty
}

// Parse reads a response head from the start of b, of which it keeps slices; head says that the request was HEAD. While N is 0
// and the result OK there is not enough of it yet: call again with all of it and more. Any other result is to be answered
// with 502.
func (r *Response) Parse(b []byte, head bool, lim Limits) Error {
	lim = lim.withDefaults()
	r.reset(b)
	r.Status, r.Reason = 0, nil
	lf := bytes.IndexByte(b, '\n')
	if lf < 0 {
		if len(b) >= lim.Head {
			return HeadTooLarge
		}
		if n := min(len(b), 7); string(b[:n]) != "HTTP/1."[:n] {
			return BadStatusLine
		}
		return OK
	}
	if e := r.line(b[:lf]); e != OK {
		return e
	}
	if e := r.parseFields(lf+1, lim, nil); e != OK || r.N == 0 {
		return e
	}
	if e := r.check(head); e != OK {
		r.N = 0
		return e
	}
	return OK
}

// line reads the status line without its LF. The space after the status may be missing when there is no reason: some servers
// forget it, and nothing depends on it.
func (r *Response) line(l []byte) Error {
	if len(l) == 0 || l[len(l)-1] != '\r' {
		return BareLF
	}
	l = l[:len(l)-1]
	if len(l) < 12 || binary.LittleEndian.Uint64(l)&0x00ffffffffffffff != 0x002e312f50545448 || l[7]-'0' > 9 || l[8] != ' ' {
		return BadStatusLine
	}
	if l[7] != '0' {
		r.Minor = 1
	}
	r.Status = int(decimal(l[9:12]))
	if r.Status < 100 || r.Status > 599 { // RFC 9110 15: invalid, to be treated as a 5xx
		return BadStatusLine
	}
	if len(l) > 12 {
		if l[12] != ' ' || controls(l[13:]) {
			return BadStatusLine
		}
		r.Reason = l[13:]
	}
	return OK
}

// check finds the end of the message (RFC 9112 6.3) and settles what else needs the whole head.
func (r *Response) check(head bool) Error {
	r.finish()
	if r.coding && r.Minor == 0 {
		return CodingInHTTP10
	}
	switch {
	case r.Status < 200 || r.Status == 204:
		// It must not say any (RFC 9110 8.6), and means nothing when it does; but who says so may send it, sooner or later.
		r.KeepAlive = r.KeepAlive && r.Length <= 0 && !r.coding
		r.Length = -1
	case head || r.Status == 304:
	case r.coding:
		r.Body = Chunked
		if r.length { // the coding wins; who sends both may not be trusted with another request
			r.KeepAlive = false
		}
	case r.length:
		r.Body = Length
	default:
		r.Body = UntilClose
		r.KeepAlive = false
	}
	if r.upgrade {
		r.Upgrade = r.upgradeTo
	}
	if r.Status == 101 && r.Upgrade == nil {
		return BadUpgrade
	}
	return OK
}
