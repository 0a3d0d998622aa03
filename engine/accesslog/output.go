package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// output is where lines go. It belongs to the writer.
type output struct {
	log  *Log
	to   string // what is open; "": nothing
	file *os.File
	conn net.Conn
	torn bool // the last write ended within a line
	buf  []byte
}

// localSyslog is where a host's syslog daemon listens.
const localSyslog = "/dev/log"

// patience bounds how long a syslog daemon is waited for.
const patience = time.Second

// open makes o write to a destination; it does nothing when it does already.
func (o *output) open(to string) error {
	if o.to == to {
		return nil
	}
	o.close()
	var err error
	remote, isRemote := strings.CutPrefix(to, "syslog://")
	switch {
	case to == "stdout":
		o.file = os.Stdout
	case to == "syslog":
		o.conn, err = net.Dial("unixgram", localSyslog)
	case isRemote:
		o.conn, err = net.Dial("udp", remote)
	default:
		o.file, err = os.OpenFile(to, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	}
	if err != nil {
		return fmt.Errorf("open the access log: %w", err)
	}
	o.to = to
	return nil
}

// close lets go of what is open.
func (o *output) close() {
	if o.file != nil && o.file != os.Stdout {
		_ = o.file.Close() // every write was answered for
	}
	if o.conn != nil {
		_ = o.conn.Close()
	}
	o.file, o.conn, o.to, o.torn = nil, nil, "", false
}

// write writes whole lines and returns how many of them have arrived.
func (o *output) write(b []byte) (lines int, err error) {
	if o.conn != nil {
		return o.send(b)
	}
	if o.torn {
		b = append([]byte{'\n'}, b...)
	}
	n, err := o.file.Write(b)
	lines = bytes.Count(b[:n], []byte{'\n'})
	if o.torn && n > 0 {
		lines--
	}
	if n > 0 {
		o.torn = b[n-1] != '\n'
	}
	if err != nil {
		return lines, fmt.Errorf("write the access log: %w", err)
	}
	return lines, nil
}

// priority of access lines: local0, informational.
const priority = "<134>"

// send sends each line as a message of its own: to this host's daemon as the C library does (RFC 3164 without a host), to another
// host as RFC 5424 has it.
func (o *output) send(b []byte) (lines int, err error) {
	now := time.Now()
	head := append(o.buf[:0], priority...)
	if o.to == "syslog" {
		head = now.AppendFormat(head, time.Stamp)
		head = append(head, " skein["...)
		head = append(strconv.AppendInt(head, int64(o.log.pid), 10), "]: "...)
	} else {
		head = append(head, "1 "...)
		head = now.UTC().AppendFormat(head, "2006-01-02T15:04:05.000000Z")
		head = append(append(append(head, ' '), o.log.node...), " skein "...)
		head = append(strconv.AppendInt(head, int64(o.log.pid), 10), " - - "...)
	}
	if err := o.conn.SetWriteDeadline(now.Add(patience)); err != nil {
		return 0, fmt.Errorf("write the access log: %w", err)
	}
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		message := append(head, b[:i]...)
		b = b[i+1:]
		o.buf = message[:0]
		head = message[:len(head)]
		if _, err := o.conn.Write(message); err != nil {
			if errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ECONNREFUSED) {
				continue // this one is lost; the next may be shorter, or somebody may listen again
			}
			return lines, fmt.Errorf("write the access log to %s: %w", o.to, err)
		}
		lines++
	}
	return lines, nil
}
