package h1

import (
	"bytes"
	"strconv"
)

// ToServer says how a request head is sent on. Everything in it may be left out.
type ToServer struct {
	Edits *Edits
	For   []byte // X-Forwarded-For: the client's address as text
	Proto string // X-Forwarded-Proto: "http" or "https"
	Host  []byte // sent when the request has none (HTTP/1.0)
	Via   bool   // the request comes from a proxy that is trusted: what it says in X-Forwarded-For and -Proto is passed on
	Close bool   // the connection to the server ends with this exchange
}

// ToClient says how a response head is sent on. Everything in it may be left out but Minor.
type ToClient struct {
	Edits  *Edits
	Minor  uint8  // of the request's version: HTTP/1.0 gets no chunks and is told of keep-alive
	Close  bool   // the connection to the client ends with this exchange; implied by ClientBody being UntilClose
	Cookie []byte // the value of a Set-Cookie field to add; nil: none
	Date   []byte // for a response without a Date (RFC 9110 6.6.1); nil: none
}

// AppendHead appends the head that goes to the server: origin-form (or asterisk-form), Host first, the end-to-end fields as
// they came, then what this proxy says itself. The body is to be sent as Body and Length say, chunked in canonical form. An
// accepted Upgrade is passed on; set r.Upgrade to nil to refuse it.
func (r *Request) AppendHead(dst []byte, o *ToServer) []byte {
	dst = append(dst, r.Method...)
	dst = append(dst, ' ')
	dst = append(dst, r.Path...)
	if r.Query != nil {
		dst = append(dst, '?')
		dst = append(dst, r.Query...)
	}
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	if r.Authority != nil {
		dst = append(dst, r.Authority...)
	} else {
		dst = append(dst, o.Host...)
	}
	dst = append(dst, "\r\n"...)
	e := o.Edits
	dst = r.appendFields(dst, e)
	if o.For != nil && (e == nil || !e.noFor) {
		dst = append(dst, "X-Forwarded-For: "...)
		if o.Via {
			dst = r.appendFor(dst)
		}
		dst = append(dst, o.For...)
		dst = append(dst, "\r\n"...)
	}
	if o.Proto != "" && (e == nil || !e.noProto) {
		dst = append(dst, "X-Forwarded-Proto: "...)
		if v := r.Header("x-forwarded-proto"); o.Via && (string(v) == "https" || string(v) == "http") {
			dst = append(dst, v...)
		} else {
			dst = append(dst, o.Proto...)
		}
		dst = append(dst, "\r\n"...)
	}
	if e == nil || !e.noVia {
		dst = append(dst, "Via: 1."...)
		dst = append(dst, '0'+r.Minor)
		dst = append(dst, " skein\r\n"...)
	}
	if r.MaxForwards > 0 {
		dst = append(dst, "Max-Forwards: "...)
		dst = strconv.AppendInt(dst, r.MaxForwards-1, 10)
		dst = append(dst, "\r\n"...)
	}
	if r.Expect100 && (e == nil || !e.noExpect) {
		dst = append(dst, "Expect: 100-continue\r\n"...)
	}
	dst = appendFraming(dst, r.Body, r.Length)
	switch {
	case r.Upgrade != nil:
		dst = append(dst, "Connection: Upgrade\r\nUpgrade: "...)
		dst = append(dst, r.Upgrade...)
		dst = append(dst, "\r\n"...)
	case o.Close:
		dst = append(dst, "Connection: close\r\n"...)
	}
	if e != nil {
		dst = append(dst, e.add...)
	}
	return append(dst, "\r\n"...)
}

// appendFor appends the X-Forwarded-For of the request with a comma behind it; several fields are one list (RFC 9110 5.3).
func (r *Request) appendFor(dst []byte) []byte {
	for i := range r.Fields {
		if f := &r.Fields[i]; isFor(f.Name) && len(f.Value) > 0 {
			dst = append(append(dst, f.Value...), ", "...)
		}
	}
	return dst
}

func isFor(name []byte) bool {
	return len(name) == len("x-forwarded-for") && equalFold(name, "x-forwarded-for")
}

// ForwardedFor calls hop for the addresses of X-Forwarded-For as they were written, the last one first, until it returns false.
func (r *Request) ForwardedFor(hop func(text []byte) bool) {
	for i := len(r.Fields) - 1; i >= 0; i-- {
		f := &r.Fields[i]
		if !isFor(f.Name) {
			continue
		}
		v := f.Value
		for len(v) > 0 {
			comma := bytes.LastIndexByte(v, ',')
			if !hop(bytes.Trim(v[comma+1:], " \t")) {
				return
			}
			v = v[:max(comma, 0)]
		}
	}
}

// ClientBody is how the body goes to a client of that minor version: as it came, but HTTP/1.0 knows no chunks. Chunks with Raw
// set turns them into what UntilClose needs.
func (r *Response) ClientBody(minor uint8) Body {
	if r.Body == Chunked && minor == 0 {
		return UntilClose
	}
	return r.Body
}

// AppendHead appends the head that goes to the client. The body is to be sent as ClientBody says. An interim response (1xx, to
// which no HTTP/1.0 client may be exposed) is passed on as it came.
func (r *Response) AppendHead(dst []byte, o *ToClient) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = append(dst, '0'+byte(r.Status/100), '0'+byte(r.Status/10%10), '0'+byte(r.Status%10), ' ')
	dst = append(dst, r.Reason...)
	dst = append(dst, "\r\n"...)
	if r.Status < 200 && r.Status != 101 {
		dst = r.appendFields(dst, nil)
		return append(dst, "\r\n"...)
	}
	e := o.Edits
	dst = r.appendFields(dst, e)
	if !r.hasDate && o.Date != nil && (e == nil || !e.noDate) {
		dst = append(dst, "Date: "...)
		dst = append(dst, o.Date...)
		dst = append(dst, "\r\n"...)
	}
	body := r.ClientBody(o.Minor)
	if r.Length >= 0 && body == NoBody {
		dst = appendFraming(dst, Length, r.Length)
	} else {
		dst = appendFraming(dst, body, r.Length)
	}
	switch {
	case r.Status == 101:
		dst = append(dst, "Connection: Upgrade\r\nUpgrade: "...)
		dst = append(dst, r.Upgrade...)
		dst = append(dst, "\r\n"...)
	case o.Close || body == UntilClose:
		dst = append(dst, "Connection: close\r\n"...)
	case o.Minor == 0:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	if o.Cookie != nil {
		dst = append(dst, "Set-Cookie: "...)
		dst = append(dst, o.Cookie...)
		dst = append(dst, "\r\n"...)
	}
	if e != nil {
		dst = append(dst, e.add...)
	}
	return append(dst, "\r\n"...)
}

// appendFields copies what is end-to-end and not dropped. Neighbours in canonical form go in one copy.
func (h *Head) appendFields(dst []byte, e *Edits) []byte {
	var start, end uint32 // the run of lines not copied yet
	for i := range h.Fields {
		f := &h.Fields[i]
		if f.Hop || e.drops(f.Name) {
			continue
		}
		if f.start == end && end != 0 {
			end = f.end
			continue
		}
		dst = append(dst, h.src[start:end]...)
		if start, end = f.start, f.end; end == 0 {
			dst = append(dst, f.Name...)
			dst = append(dst, ": "...)
			dst = append(dst, f.Value...)
			dst = append(dst, "\r\n"...)
		}
	}
	return append(dst, h.src[start:end]...)
}

// appendFraming appends the field that says where the body ends.
func appendFraming(dst []byte, b Body, length int64) []byte {
	switch b {
	case Length:
		dst = append(dst, "Content-Length: "...)
		dst = strconv.AppendInt(dst, length, 10)
		dst = append(dst, "\r\n"...)
	case Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	}
	return dst
}
