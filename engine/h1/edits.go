package h1

import (
	"strings"

	"github.com/skeinlb/skein/config"
)

// Edits are changes of a head, compiled. A nil *Edits changes nothing. It is immutable.
type Edits struct {
	lengths uint64   // bit len%64 of every name in drop: most fields are passed over by it
	drop    []string // lower case; fields that do not get through
	add     []byte   // complete lines to append

	// The fields that AppendHead makes by itself: left out when dropped.
	noFor, noProto, noVia, noExpect, noDate bool
}

// CompileEdits merges edits into one, each applied to what those before it left: remove, then set, then add. Fields that
// are not the operator's (see Owned) are not touched. It returns nil when there is nothing to do.
func CompileEdits(edits ...config.HeaderEdits) *Edits {
	dropped := map[string]bool{}
	type line struct{ lower, name, value string }
	var lines []line
	drop := func(name string) string {
		lower := strings.ToLower(name)
		dropped[lower] = true
		kept := lines[:0]
		for _, l := range lines {
			if l.lower != lower {
				kept = append(kept, l)
			}
		}
		lines = kept
		return lower
	}
	for _, e := range edits {
		for _, name := range e.Remove {
			if !Owned(name) {
				drop(name)
			}
		}
		for _, h := range e.Set {
			if !Owned(h.Name) {
				lines = append(lines, line{drop(h.Name), h.Name, h.Value})
			}
		}
		for _, h := range e.Add {
			if !Owned(h.Name) {
				lines = append(lines, line{strings.ToLower(h.Name), h.Name, h.Value})
			}
		}
	}
	if len(dropped) == 0 && len(lines) == 0 {
		return nil
	}
	c := &Edits{
		noFor:    dropped["x-forwarded-for"],
		noProto:  dropped["x-forwarded-proto"],
		noVia:    dropped["via"],
		noExpect: dropped["expect"],
		noDate:   dropped["date"],
	}
	for name := range dropped {
		c.drop = append(c.drop, name)
		c.lengths |= 1 << (len(name) % 64)
	}
	for _, l := range lines {
		c.add = append(append(append(append(c.add, l.name...), ": "...), l.value...), "\r\n"...)
	}
	return c
}

// Owned reports whether a field belongs to the connection, frames the message or says whom it is for, so that no edit may touch
// it.
func Owned(name string) bool {
	switch strings.ToLower(name) {
	case "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "content-length", "upgrade", "host":
		return true
	}
	return false
}

// drops reports whether e keeps a field of this name from getting through.
func (e *Edits) drops(name []byte) bool {
	if e == nil || e.lengths&(1<<(len(name)%64)) == 0 {
		return false
	}
	for _, d := range e.drop {
		if equalFold(name, d) {
			return true
		}
	}
	return false
}

// IsToken reports whether s is a token (RFC 9110 5.6.2): what a method or a field name may be.
func IsToken(s string) bool { return s != "" && all([]byte(s), isToken) }
