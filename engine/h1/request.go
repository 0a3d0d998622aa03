package h1

import (
	"bytes"
	"encoding/binary"
)

// Request is a parsed request head. Its zero value is ready for Parse; use one per connection and again for every request.
type Request struct {
	Head
	Method    []byte
	Target    []byte // as received
	Path      []byte // as received, without the query; "*" for OPTIONS *
	Query     []byte // without "?"; nil when there is none
	Authority []byte // host and port, from the target when that is absolute, else from Host; nil: HTTP/1.0 without one
	Host      []byte // Authority without its port

	Expect100   bool  // the client waits for 100 (Continue) before it sends the body
	MaxForwards int64 // of OPTIONS and TRACE, -1: none. 0: answer it here, AppendHead must not be called

	hasHost bool
}

var (
	slash    = []byte("/")
	asterisk = []byte("*")
)

// Parse reads a request head from the start of b, of which it keeps slices. While N is 0 and the result OK there is not enough
// of it yet: call again with all of it and more. (That starts over. A head is short enough for this to cost less than the
// read that brought the bytes, and what is wrong already is refused before its end.)
func (r *Request) Parse(b []byte, lim Limits) Error {
	lim = lim.withDefaults()
	r.reset(b)
	r.Method, r.Target, r.Path, r.Query, r.Authority, r.Host = nil, nil, nil, nil, nil, nil
	r.Expect100, r.MaxForwards, r.hasHost = false, -1, false
	start := 0
	if len(b) > 0 && (b[0] == '\r' || b[0] == '\n') { // one empty line before a request is ignored (RFC 9112 2.2)
		switch {
		case b[0] == '\n':
			return BareLF
		case len(b) == 1:
			return OK
		case b[1] != '\n':
			return BareCR
		}
		start = 2
	}
	n := bytes.IndexByte(b[start:], '\n')
	if n < 0 {
		return partialLine(b[start:], lim)
	}
	lf := start + n
	if e := r.line(b[start:lf]); e != OK {
		return e
	}
	if lf >= lim.Head {
		return TargetTooLong
	}
	if e := r.parseFields(lf+1, lim, r); e != OK || r.N == 0 {
		return e
	}
	return r.check()
}

// partialLine refuses what can never become a request line, a TLS handshake for example.
func partialLine(b []byte, lim Limits) Error {
	for i, c := range b {
		if class[c]&isToken != 0 {
			continue
		}
		if c != '\r' && (c != ' ' || i == 0) {
			return BadMethod
		}
		break
	}
	if len(b) >= lim.Head {
		return TargetTooLong
	}
	return OK
}

// line reads the request line without its LF.
func (r *Request) line(l []byte) Error {
	if len(l) == 0 || l[len(l)-1] != '\r' {
		return BareLF
	}
	l = l[:len(l)-1]
	sp := bytes.IndexByte(l, ' ')
	if sp <= 0 {
		if all(l, isToken) {
			return BadRequestLine
		}
		return BadMethod
	}
	if !all(l[:sp], isToken) {
		return BadMethod
	}
	r.Method = l[:sp]
	rest := l[sp+1:]
	if len(rest) < 10 || rest[len(rest)-9] != ' ' {
		return BadRequestLine
	}
	v := rest[len(rest)-8:]
	if binary.LittleEndian.Uint64(v)&0x00ffffffffffffff != 0x002e312f50545448 || v[7]-'0' > 9 { // "HTTP/1." and a digit
		if string(v[:5]) == "HTTP/" && v[5]-'0' <= 9 && v[6] == '.' && v[7]-'0' <= 9 {
			return UnsupportedVersion
		}
		return BadVersion
	}
	if v[7] != '0' { // a higher minor version is read as the highest known (RFC 9110 2.5)
		r.Minor = 1
	}
	return r.target(rest[:len(rest)-9])
}

// target takes the request target apart (RFC 9112 3.2).
func (r *Request) target(t []byte) Error {
	r.Target = t
	if len(r.Method) == 7 && string(r.Method) == "CONNECT" {
		return ConnectRefused
	}
	switch {
	case t[0] == '/':
		r.Path = t
	case len(t) == 1 && t[0] == '*':
		if string(r.Method) != "OPTIONS" {
			return BadTarget
		}
		r.Path = t
		return OK
	default:
		if e := r.absolute(t); e != OK {
			return e
		}
	}
	if i := bytes.IndexByte(r.Path, '?'); i >= 0 {
		r.Path, r.Query = r.Path[:i], r.Path[i+1:]
		if !all(r.Query, isQuery) {
			return BadTarget
		}
	}
	if !all(r.Path, isPath) {
		return BadTarget
	}
	if len(r.Path) == 0 {
		r.Path = slash
		if r.Query == nil && string(r.Method) == "OPTIONS" { // RFC 9112 3.2.4
			r.Path = asterisk
		}
	}
	return OK
}

// absolute splits an absolute-form target into authority and the rest, which it leaves in Path.
func (r *Request) absolute(t []byte) Error {
	switch {
	case len(t) > 7 && equalFold(t[:7], "http://"):
		t = t[7:]
	case len(t) > 8 && equalFold(t[:8], "https://"):
		t = t[8:]
	default:
		return BadTarget
	}
	end := len(t)
	if i := bytes.IndexAny(t, "/?"); i >= 0 {
		end = i
	}
	var ok bool
	if r.Authority, r.Host, ok = splitHost(t[:end]); !ok {
		return BadTarget
	}
	r.Path = t[end:]
	return OK
}

// host takes the Host field. An absolute target outranks it, but it must be well-formed all the same (RFC 9112 3.2.2).
func (r *Request) host(v []byte) Error {
	if r.hasHost {
		return DuplicateHost
	}
	r.hasHost = true
	authority, host, ok := splitHost(v)
	if !ok {
		return BadHost
	}
	if r.Authority == nil {
		r.Authority, r.Host = authority, host
	}
	return OK
}

// limited reports whether Max-Forwards means something to the method (RFC 9110 7.6.2).
func (r *Request) limited() bool {
	return len(r.Method) == 7 && string(r.Method) == "OPTIONS" || len(r.Method) == 5 && string(r.Method) == "TRACE"
}

// check settles what needs the whole head.
func (r *Request) check() Error {
	r.finish()
	switch {
	case !r.hasHost && r.Minor == 1:
		return r.refuse(MissingHost)
	case r.coding && r.length:
		return r.refuse(LengthAndCoding)
	case r.coding && r.Minor == 0:
		return r.refuse(CodingInHTTP10)
	case r.coding:
		r.Body = Chunked
	case r.length:
		r.Body = Length
	}
	content := r.Body == Chunked || r.Length > 0
	if content && string(r.Method) == "TRACE" {
		return r.refuse(TraceWithBody)
	}
	if r.Minor == 0 || !content { // nothing to wait with, or nobody who could hear it (RFC 9110 10.1.1)
		r.Expect100 = false
	}
	if r.upgrade && r.Minor == 1 && !content && !offersH2C(r.upgradeTo) { // else ignored, as a server may (RFC 9110 7.8)
		r.Upgrade = r.upgradeTo
	}
	return OK
}

func (r *Request) refuse(e Error) Error {
	r.N = 0
	return e
}
