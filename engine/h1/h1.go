// Package h1 is the HTTP/1.1 codec: bytes in, heads and chunks out, and back again in one canonical form.
//
// It does no I/O, keeps no buffer and knows neither routes nor servers. It allocates nothing once a value's backing array has
// grown. The one rule: what it emits has one meaning only. A message that two readers could frame differently is refused here
// and reaches nobody (RFC 9112 section 11).
package h1

// Limits bound a head. The zero Limits is the default.
type Limits struct {
	Head   int // bytes, from the first of the start line to the empty line; 0: DefaultHead
	Fields int // field lines; 0: DefaultFields
}

// The limits of the zero Limits.
const (
	DefaultHead   = 32 << 10
	DefaultFields = 128
)

func (l Limits) withDefaults() Limits {
	if l.Head == 0 {
		l.Head = DefaultHead
	}
	if l.Fields == 0 {
		l.Fields = DefaultFields
	}
	return l
}

// Body is the way in which a message's end is found.
type Body uint8

const (
	NoBody     Body = iota // ends with its head
	Length                 // Content-Length bytes follow
	Chunked                // chunks follow
	UntilClose             // everything until the connection ends; responses only
)

func (b Body) String() string {
	switch b {
	case NoBody:
		return "none"
	case Length:
		return "length"
	case Chunked:
		return "chunked"
	case UntilClose:
		return "until close"
	}
	return "unknown"
}

// Field is one field line. Its slices point into the parsed buffer.
type Field struct {
	Name  []byte
	Value []byte // without the white space around it
	Hop   bool   // hop-by-hop, named by Connection, or made anew by AppendHead: not copied to the other side

	// 0 < start < end: the line as received, canonical already ("Name: value" CRLF). AppendHead copies runs of them at once.
	start, end uint32
}

// Head is what requests and responses have in common. It belongs to the value that parsed it, until the next Parse.
type Head struct {
	N         int   // bytes of the head; 0: incomplete, parse again when there is more
	Minor     uint8 // of HTTP/1.x: 0 or 1
	Body      Body
	Length    int64   // of a body framed by Length; of NoBody, what Content-Length said all the same (HEAD, 304), or -1
	KeepAlive bool    // the peer lets the connection be used again
	Upgrade   []byte  // the Upgrade field; nil unless Connection says "upgrade" and it may be honoured
	Fields    []Field // in order of arrival, hop-by-hop ones included

	src []byte // what Fields point into

	// What the field section said, for the checks that need the whole of it.
	coding    bool // Transfer-Encoding: chunked
	length    bool // a Content-Length
	close     bool // the connection options of the same name
	keepAlive bool
	upgrade   bool
	upgradeTo []byte // the Upgrade field, honoured or not
	hasDate   bool
	options   int              // entries of named in use
	named     [maxNamed][]byte // other connection options: names of fields
}

// reset makes h ready for another head. Only what options counts of named is ever read, so that it need not be cleared.
func (h *Head) reset(b []byte) {
	h.src, h.Fields = b, h.Fields[:0]
	h.N, h.Minor, h.Body, h.Length, h.KeepAlive, h.Upgrade = 0, 0, NoBody, -1, false, nil
	h.coding, h.length, h.close, h.keepAlive, h.upgrade, h.hasDate, h.upgradeTo = false, false, false, false, false, false, nil
	h.options = 0
}

// maxNamed bounds the fields that Connection may name, so that looking for them stays a short loop.
const maxNamed = 8

// Header returns the value of the first field of that name (in lower case), or nil when there is none. A field without a
// value is empty, not nil.
func (h *Head) Header(name string) []byte {
	for i := range h.Fields {
		f := &h.Fields[i]
		if len(f.Name) == len(name) && equalFold(f.Name, name) {
			return f.Value
		}
	}
	return nil
}
