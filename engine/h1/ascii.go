package h1

import "encoding/binary"

// Classes of bytes. One table, one load per byte.
const (
	isToken = 1 << iota // RFC 9110 5.6.2
	isPath              // may stand in the path of a request target
	isQuery             // may stand in its query
	isHost              // may stand in a reg-name
	isHex
)

// class holds the classes of each byte.
var class = func() (t [256]uint8) {
	for c := 0x21; c < 0x7f; c++ {
		t[c] |= isPath | isQuery
	}
	// RFC 3986 forbids more than these, but browsers send [ ] { } | ^ ` as they are (WHATWG URL, the percent-encode sets).
	for _, c := range `#"<>` {
		t[c] &^= isPath | isQuery
	}
	t['\\'] &^= isPath // read as "/" by some
	for c := '0'; c <= '9'; c++ {
		t[c] |= isToken | isHost | isHex
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c] |= isToken | isHost
		t[c-32] |= isToken | isHost
	}
	for c := 'a'; c <= 'f'; c++ {
		t[c] |= isHex
		t[c-32] |= isHex
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] |= isToken
	}
	// unreserved and sub-delims, but no comma: a Host with one is two Hosts to whoever joins fields.
	for _, c := range "-._~!$&'()*+;=%" {
		t[c] |= isHost
	}
	return t
}()

// all reports whether every byte of b is of the class.
func all(b []byte, is uint8) bool {
	for _, c := range b {
		if class[c]&is == 0 {
			return false
		}
	}
	return true
}

// equalFold compares b to lower, which has b's length and no capitals, without regard to ASCII case.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := 0; i < len(lower); i++ {
		if c := b[i]; c != lower[i] && (c|0x20 != lower[i] || c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

// equalFoldBytes compares two names without regard to ASCII case.
func equalFoldBytes(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lowerByte(a[i]) != lowerByte(b[i]) {
			return false
		}
	}
	return true
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// controls reports whether b holds a control character other than HT, or DEL. Eight bytes a step: a byte below 0x20 or equal
// to 0x7f sets its high bit in one of the two differences (false alarms only, which the slow path clears).
func controls(b []byte) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	for len(b) >= 8 {
		x := binary.LittleEndian.Uint64(b)
		del := x ^ 0x7f*ones
		if ((x-0x20*ones)&^x|(del-ones)&^del)&highs != 0 && controlsSlow(b[:8]) {
			return true
		}
		b = b[8:]
	}
	return controlsSlow(b)
}

func controlsSlow(b []byte) bool {
	for _, c := range b {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

// trim cuts optional white space (RFC 9110 5.6.3).
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// decimal reads digits and nothing else, at most 18 of them; -1: not a number.
func decimal(b []byte) int64 {
	if len(b) == 0 || len(b) > 18 {
		return -1
	}
	var n int64
	for _, c := range b {
		if c-'0' > 9 {
			return -1
		}
		n = n*10 + int64(c-'0')
	}
	return n
}
