package h1

import "bytes"

// parseFields reads the field section of h.src from i on and sets N when it is complete. q is nil for a
// response.
func (h *Head) parseFields(i int, lim Limits, q *Request) Error {
	b := h.src
	for {
		if i >= len(b) {
			return h.incomplete(lim)
		}
		c := b[i]
		if c == '\r' {
			if i+1 >= len(b) {
				return h.incomplete(lim)
			}
			if b[i+1] != '\n' {
				return BareCR
			}
			if i+2 > lim.Head {
				return HeadTooLarge
			}
			h.N = i + 2
			return OK
		}
		j := i
		for j < len(b) && class[b[j]]&isToken != 0 {
			j++
		}
		if j >= len(b) {
			return h.incomplete(lim)
		}
		colon := j
		if b[j] != ':' || j == i {
			var e Error
			if colon, e = badName(b, i, j, q == nil); e != OK {
				return e
			}
			if colon == 0 {
				return h.incomplete(lim)
			}
		}
		n := bytes.IndexByte(b[colon:], '\n')
		if n < 0 {
			return h.incomplete(lim)
		}
		lf := colon + n
		if b[lf-1] != '\r' {
			return BareLF
		}
		if len(h.Fields) >= lim.Fields {
			return TooManyFields
		}
		value := b[colon+1 : lf-1]
		if controls(value) {
			if bytes.IndexByte(value, '\r') >= 0 {
				return BareCR
			}
			return BadFieldValue
		}
		f := h.field() // filled in where it stays
		f.Name, f.Value, f.Hop = b[i:j], trim(value), false
		f.start, f.end = 0, 0
		if len(value) == len(f.Value)+1 && value[0] == ' ' && colon == j {
			f.start, f.end = uint32(i), uint32(lf+1)
		}
		if e := h.known(f, q); e != OK {
			return e
		}
		i = lf + 1
	}
}

// field returns a place at the end of Fields, with whatever was there before.
func (h *Head) field() *Field {
	n := len(h.Fields)
	if n == cap(h.Fields) {
		h.Fields = append(h.Fields, Field{})
	} else {
		h.Fields = h.Fields[:n+1]
	}
	return &h.Fields[n]
}

// incomplete is the verdict on a head that has not ended yet.
func (h *Head) incomplete(lim Limits) Error {
	if len(h.src) >= lim.Head {
		return HeadTooLarge
	}
	return OK
}

// badName says what is wrong with the field name b[i:j]. White space before the colon is removed from a response (RFC 9112
// 5.1) and refused in a request. It returns the colon's place, or 0 when more bytes are needed to tell.
func badName(b []byte, i, j int, response bool) (int, Error) {
	switch c := b[j]; {
	case j == i && (c == ' ' || c == '\t'):
		return 0, FoldedField
	case c == '\n':
		return 0, BareLF
	case j == i || c != ' ' && c != '\t':
		return 0, BadFieldName
	}
	for j < len(b) && (b[j] == ' ' || b[j] == '\t') {
		j++
	}
	switch {
	case j == len(b):
		return 0, OK
	case b[j] != ':':
		return 0, BadFieldName
	case !response:
		return 0, SpaceBeforeColon
	}
	return j, OK
}

// known handles the fields that this package understands. They are told apart by length first: most names end there. q is nil
// for a response.
func (h *Head) known(f *Field, q *Request) Error {
	switch n := f.Name; len(n) {
	case 2:
		f.Hop = equalFold(n, "te")
	case 4:
		if equalFold(n, "date") {
			h.hasDate = true
		} else if q != nil && equalFold(n, "host") {
			f.Hop = true
			return q.host(f.Value)
		}
	case 6:
		if q != nil && equalFold(n, "expect") {
			f.Hop = true
			if !equalFold(f.Value, "100-continue") {
				return BadExpect
			}
			q.Expect100 = true
		}
	case 7:
		if equalFold(n, "trailer") {
			f.Hop = true
		} else if equalFold(n, "upgrade") {
			f.Hop = true
			if !protocols(f.Value) || h.upgradeTo != nil {
				return BadUpgrade
			}
			h.upgradeTo = f.Value
		}
	case 10:
		if equalFold(n, "connection") {
			f.Hop = true
			return h.connection(f.Value)
		}
		f.Hop = equalFold(n, "keep-alive")
	case 12:
		if q != nil && equalFold(n, "max-forwards") && q.limited() {
			f.Hop = true
			m := decimal(f.Value)
			if m < 0 || q.MaxForwards >= 0 {
				return BadMaxForwards
			}
			q.MaxForwards = m
		}
	case 14:
		if equalFold(n, "content-length") {
			f.Hop = true
			l := decimal(f.Value)
			if l < 0 {
				return BadContentLength
			}
			if h.length {
				return DuplicateContentLength
			}
			h.length, h.Length = true, l
		} else {
			f.Hop = equalFold(n, "http2-settings")
		}
	case 15:
		f.Hop = q != nil && forwarded(n, "x-forwarded-for")
	case 16:
		f.Hop = equalFold(n, "proxy-connection")
	case 17:
		if equalFold(n, "transfer-encoding") {
			f.Hop = true
			if h.coding || len(f.Value) == 0 {
				return BadTransferEncoding
			}
			if !equalFold(f.Value, "chunked") {
				if bytes.IndexByte(f.Value, ',') >= 0 && repeatsChunked(f.Value) {
					return BadTransferEncoding
				}
				return UnknownTransferCoding
			}
			h.coding = true
		} else {
			f.Hop = q != nil && forwarded(n, "x-forwarded-proto")
		}
	}
	return OK
}

// forwarded is equalFold but takes "_" for "-" too: both are the same variable to a CGI-like server, and whoever may not say
// one of them may not say the other.
func forwarded(name []byte, lower string) bool {
	for i, c := range name {
		if c == '_' {
			c = '-'
		}
		if lowerByte(c) != lower[i] {
			return false
		}
	}
	return true
}

// next cuts the first element off a comma-separated list.
func next(list []byte) (element, rest []byte) {
	if i := bytes.IndexByte(list, ','); i >= 0 {
		return trim(list[:i]), list[i+1:]
	}
	return trim(list), nil
}

// repeatsChunked reports whether a list of transfer codings has chunked anywhere but as its last and only time.
func repeatsChunked(list []byte) bool {
	seen := false
	for list != nil {
		var t []byte
		if t, list = next(list); len(t) == 0 {
			continue
		}
		if seen {
			return true
		}
		seen = equalFold(t, "chunked")
	}
	return false
}

// connection reads the options of a Connection field (RFC 9110 7.6.1).
func (h *Head) connection(list []byte) Error {
	for list != nil {
		var t []byte
		if t, list = next(list); len(t) == 0 {
			continue
		}
		switch {
		case len(t) == 5 && equalFold(t, "close"):
			h.close = true
		case len(t) == 10 && equalFold(t, "keep-alive"):
			h.keepAlive = true
		case len(t) == 7 && equalFold(t, "upgrade"):
			h.upgrade = true
		case len(t) == 2 && equalFold(t, "te"), len(t) == 14 && equalFold(t, "http2-settings"):
		case !all(t, isToken), h.options == maxNamed:
			return BadConnection
		default:
			h.named[h.options] = t
			h.options++
		}
	}
	return OK
}

// protocols checks an Upgrade field: protocol names with an optional version.
func protocols(list []byte) bool {
	some := false
	for list != nil {
		var t []byte
		if t, list = next(list); len(t) == 0 {
			continue
		}
		name, version, versioned := bytes.Cut(t, []byte{'/'})
		if len(name) == 0 || !all(name, isToken) || versioned && (len(version) == 0 || !all(version, isToken)) {
			return false
		}
		some = true
	}
	return some
}

// offersH2C reports whether an Upgrade field offers HTTP/2 in clear text. It is never passed on: behind it, requests would go
// past every rule of this proxy.
func offersH2C(list []byte) bool {
	for list != nil {
		var t []byte
		if t, list = next(list); equalFold(t, "h2c") {
			return true
		}
	}
	return false
}

// finish settles what the whole field section is needed for: hop-by-hop marks and persistence.
func (h *Head) finish() {
	for _, name := range h.named[:h.options] {
		for i := range h.Fields {
			if f := &h.Fields[i]; equalFoldBytes(f.Name, name) {
				f.Hop = true
			}
		}
	}
	h.KeepAlive = !h.close && (h.Minor == 1 || h.keepAlive)
	if h.coding {
		h.Length = -1
	}
}
