package accesslog

import (
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/skeinlb/skein/config"
)

// Bounds of what a line repeats of a request. What is longer is cut.
const (
	MaxMethod = 32
	MaxTarget = 2048
	MaxHost   = 256
	MaxHeader = 192 // for each

	// The longest line: in JSON, a control character becomes six.
	maxLine = 6*(MaxMethod+MaxTarget+MaxHost+MaxHeaders*MaxHeader) + 2048
)

// form writes lines. It remembers the last second that it has written: most lines are of the same. Its zero value is ready.
type form struct {
	second int64
	json   [len("2006-01-02T15:04:05")]byte
	clf    [len("02/Jan/2006:15:04:05")]byte
	bsd    [len("Jan _2 15:04:05")]byte
	known  bool
}

// at makes the form's texts say the second of a time.
func (f *form) at(ns int64) {
	second := ns / 1e9
	if f.known && f.second == second {
		return
	}
	f.second, f.known = second, true
	t := time.Unix(second, 0)
	t.UTC().AppendFormat(f.json[:0], "2006-01-02T15:04:05")
	t.AppendFormat(f.clf[:0], "02/Jan/2006:15:04:05")
	t.AppendFormat(f.bsd[:0], "Jan _2 15:04:05")
}

// line appends a line with its end.
func (f *form) line(b []byte, s *Settings, node string, pid int, e *Entry) []byte {
	f.at(e.Start)
	if s.Format == config.LogHAProxy {
		if s.header() {
			b = append(append(b, f.bsd[:]...), ' ')
			b = append(append(b, node...), " skein["...)
			b = append(strconv.AppendInt(b, int64(pid), 10), "]: "...)
		}
		b = f.haproxy(b, s, e)
	} else {
		b = f.object(b, s, node, e)
	}
	return append(b, '\n')
}

// header says whether lines of HAProxy's format begin as a syslog daemon would have written them: in files, where tools look for it.
func (s *Settings) header() bool { return s.To[0] == '/' }

// object appends a line as a JSON object. Its keys come in one order; what has no value is not there.
func (f *form) object(b []byte, s *Settings, node string, e *Entry) []byte {
	b = append(append(b, `{"time":"`...), f.json[:]...)
	b = append(b, '.')
	b = appendDigits(b, e.Start%1e9/1e3, 6)
	b = append(append(b, `Z","node":"`...), node...) // names need no escape
	b = append(b, `","client":"`...)
	if e.Peer.IsValid() {
		b = e.Client.Addr().AppendTo(b)
		b = append(b, `","peer":"`...)
		b = netip.AddrPortFrom(e.Peer, e.Client.Port()).AppendTo(b)
	} else {
		b = e.Client.AppendTo(b)
	}
	b = append(append(b, `","frontend":"`...), e.Frontend...)
	if e.Backend != "" {
		b = append(append(b, `","backend":"`...), e.Backend...)
	}
	if e.Server != "" {
		b = append(append(b, `","server":"`...), e.Server...)
	}
	b = append(b, '"')
	if e.Method != nil {
		b = appendJSON(append(b, `,"method":`...), e.Method)
		if e.Host != nil {
			b = appendJSON(append(b, `,"host":`...), e.Host)
		}
		b = appendJSON(append(b, `,"target":`...), e.Target)
		b = append(append(b, `,"protocol":"HTTP/1.`...), '0'+e.Minor, '"')
	}
	if e.Status != 0 {
		b = strconv.AppendInt(append(b, `,"status":`...), int64(e.Status), 10)
	}
	b = strconv.AppendInt(append(b, `,"bytes_in":`...), e.In, 10)
	b = strconv.AppendInt(append(b, `,"bytes_out":`...), e.Out, 10)
	b = appendMillis(b, `,"request_ms":`, e.Request)
	b = appendMillis(b, `,"queue_ms":`, e.Queue)
	b = appendMillis(b, `,"connect_ms":`, e.Connect)
	b = appendMillis(b, `,"response_ms":`, e.Response)
	b = appendMillis(b, `,"total_ms":`, e.Total)
	if e.Retries > 0 {
		b = strconv.AppendInt(append(b, `,"retries":`...), int64(e.Retries), 10)
	}
	b = append(append(b, `,"cause":"`...), e.Cause...)
	b = append(append(b, `","termination":"`...), e.Code[0], e.Code[1], '"')
	if e.Method != nil && len(s.labels) > 0 {
		sep := `,"headers":{`
		for i, label := range s.labels {
			if v := e.Headers[i]; v != nil {
				b = append(append(b, sep...), label...)
				b = appendJSON(b, v)
				sep = ","
			}
		}
		if sep == "," {
			b = append(b, '}')
		}
	}
	return append(b, '}')
}

// haproxy appends a line as HAProxy does with `option httplog` or `option tcplog` (configuration manual, 8.2.2 and 8.2.3).
func (f *form) haproxy(b []byte, s *Settings, e *Entry) []byte {
	b = e.Client.Addr().AppendTo(b)
	b = strconv.AppendUint(append(b, ':'), uint64(e.Client.Port()), 10)
	b = append(append(b, " ["...), f.clf[:]...)
	b = appendDigits(append(b, '.'), e.Start%1e9/1e6, 3)
	b = append(append(b, "] "...), e.Frontend...)
	b = append(b, ' ')
	if e.Backend == "" {
		b = append(b, e.Frontend...)
	} else {
		b = append(b, e.Backend...)
	}
	b = append(b, '/')
	if e.Server == "" {
		b = append(b, "<NOSRV>"...)
	} else {
		b = append(b, e.Server...)
	}
	b = append(b, ' ')
	if !e.TCP {
		b = append(appendWhole(b, e.Request), '/')
	}
	b = append(appendWhole(b, e.Queue), '/')
	b = append(appendWhole(b, e.Connect), '/')
	if !e.TCP {
		b = append(appendWhole(b, e.Response), '/')
	}
	b = append(appendWhole(b, e.Total), ' ')
	if !e.TCP {
		status := int64(e.Status)
		if status == 0 {
			status = -1
		}
		b = append(strconv.AppendInt(b, status, 10), ' ')
	}
	b = strconv.AppendInt(b, e.Out, 10)
	if !e.TCP {
		b = append(b, " - -"...)
	}
	b = append(b, ' ', e.Code[0], e.Code[1])
	if !e.TCP {
		b = append(b, "--"...)
	}
	for i, n := range [...]int64{e.Connections, e.FrontendConnections, e.BackendActive, e.ServerActive} {
		b = append(b, " /"[min(i, 1)])
		b = strconv.AppendInt(b, n, 10)
	}
	b = strconv.AppendInt(append(b, '/'), int64(e.Retries), 10)
	b = append(b, " 0/"...)
	b = strconv.AppendInt(b, e.Ahead, 10)
	if e.TCP {
		return b
	}
	if e.Method == nil {
		return append(b, ` "<BADREQ>"`...)
	}
	if len(s.Headers) > 0 {
		b = append(b, " {"...)
		for i := range s.Headers {
			if i > 0 {
				b = append(b, '|')
			}
			b = appendHex(b, e.Headers[i], true)
		}
		b = append(b, '}')
	}
	b = appendHex(append(b, ` "`...), e.Method, false)
	b = appendHex(append(b, ' '), e.Target, false)
	return append(append(b, " HTTP/1."...), '0'+e.Minor, '"')
}

// appendMillis appends a time with its key, in milliseconds to the microsecond, if it came to that.
func appendMillis(b []byte, key string, ns int64) []byte {
	if ns < 0 {
		return b
	}
	us := ns / 1e3
	b = strconv.AppendInt(append(b, key...), us/1e3, 10)
	if us %= 1e3; us == 0 {
		return b
	}
	return appendDigits(append(b, '.'), us, 3)
}

// appendWhole appends a time in whole milliseconds, as HAProxy does; -1 when it did not come to that.
func appendWhole(b []byte, ns int64) []byte {
	if ns < 0 {
		return append(b, "-1"...)
	}
	return strconv.AppendInt(b, ns/1e6, 10)
}

// appendDigits appends v with leading zeros.
func appendDigits(b []byte, v int64, n int) []byte {
	at := len(b)
	b = append(b, "000000000"[:n]...)
	for i := at + n - 1; i >= at; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
	return b
}

const hexDigits = "0123456789ABCDEF"

// appendJSON appends any bytes as a JSON string. Bytes that are no UTF-8 become the replacement character.
func appendJSON(b, v []byte) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(v); {
		c := v[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
				i++
				continue
			}
			b = append(b, v[from:i]...)
			if c == '"' || c == '\\' {
				b = append(b, '\\', c)
			} else {
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			from = i
			continue
		}
		r, n := utf8.DecodeRune(v[i:])
		if r == utf8.RuneError && n == 1 {
			b = append(append(b, v[from:i]...), `\ufffd`...)
			i++
			from = i
			continue
		}
		if r == '\u0085' || r == '\u2028' || r == '\u2029' { // ends of lines, for some readers
			b = append(append(b, v[from:i]...), '\\', 'u', hexDigits[r>>12], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
			i += n
			from = i
			continue
		}
		i += n
	}
	return append(append(b, v[from:]...), '"')
}

// appendHex appends any bytes as HAProxy does: what could be taken for the line's own structure becomes # and two hexadecimal digits.
// Of a header's value that is more than of a request line.
func appendHex(b, v []byte, header bool) []byte {
	for _, c := range v {
		if c < ' ' || c >= 0x7f || c == '"' || c == '#' || header && (c == '{' || c == '|' || c == '}') {
			b = append(b, '#', hexDigits[c>>4], hexDigits[c&15])
			continue
		}
		b = append(b, c)
	}
	return b
}
