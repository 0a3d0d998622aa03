package vip

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// prose is lines of text in memory that is used again.
type prose struct {
	text []byte
	ends []int
}

func (l *prose) reset() { l.text, l.ends = l.text[:0], l.ends[:0] }

// say adds a line; see appendf.
func (l *prose) say(format string, args ...any) {
	l.text = appendf(l.text, format, args...)
	l.ends = append(l.ends, len(l.text))
}

// each calls f for every line. It is good until the next one is added.
func (l *prose) each(f func(line []byte)) {
	from := 0
	for _, to := range l.ends {
		f(l.text[from:to])
		from = to
	}
}

func (l *prose) strings() (out []string) {
	l.each(func(line []byte) { out = append(out, string(line)) })
	return out
}

// appendf is fmt.Appendf for verbs of one letter and for what a guard speaks of. Nothing of it gets to the heap: args stay with the caller,
// since their methods are called by type and not through an interface.
func appendf(b []byte, format string, args ...any) []byte {
	for _, arg := range args {
		i := strings.IndexByte(format, '%')
		if i < 0 || i+1 == len(format) {
			break
		}
		b = append(b, format[:i]...)
		format = format[i+2:]
		switch a := arg.(type) {
		case string:
			b = append(b, a...)
		case int:
			b = strconv.AppendInt(b, int64(a), 10)
		case uint64:
			b = strconv.AppendUint(b, a, 10)
		case time.Duration:
			b = append(b, a.String()...)
		case Epoch:
			b = append(strconv.AppendUint(b, a.Generation, 10), '.')
			b = strconv.AppendUint(b, a.Index, 10)
		case netip.Addr:
			b = a.AppendTo(b)
		case net.HardwareAddr:
			b = appendMAC(b, a)
		default:
			b = append(b, "%!"...) // a test says every line
		}
	}
	return append(b, format...)
}

func appendMAC(b []byte, mac []byte) []byte {
	const digits = "0123456789abcdef"
	for i, c := range mac {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, digits[c>>4], digits[c&15])
	}
	return b
}
