package load

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tlsConfig is what every proxy is asked with: TLS 1.3 and X25519, which all of them speak, so that all do the same arithmetic. What
// the hardware helps with decides the cipher: AES-128-GCM. The chain is not verified, but the signature is.
func tlsConfig(cache tls.ClientSessionCache) *tls.Config {
	return &tls.Config{
		ServerName:             "bench.example",
		InsecureSkipVerify:     true,
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519},
		ClientSessionCache:     cache,
		SessionTicketsDisabled: cache == nil,
	}
}

// again tells crypto/tls that there is nothing to read now, in a way that it does not remember.
type again struct{}

func (again) Error() string   { return "nothing to read now" }
func (again) Timeout() bool   { return false }
func (again) Temporary() bool { return true }

// descriptor is a net.Conn over a descriptor that does not block. Reads wait while it is patient, writes always.
type descriptor struct {
	fd      int
	patient bool
}

func (d *descriptor) Read(b []byte) (int, error) {
	for {
		n, errno := recv(d.fd, b, len(b), 0)
		switch {
		case errno == unix.EAGAIN && d.patient:
			if err := d.await(unix.POLLIN); err != nil {
				return 0, err
			}
		case errno == unix.EAGAIN:
			return 0, again{}
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (d *descriptor) Write(b []byte) (int, error) {
	for sent := 0; sent < len(b); {
		n, errno := send(d.fd, b[sent:], 0)
		switch {
		case errno == unix.EAGAIN:
			if err := d.await(unix.POLLOUT); err != nil {
				return sent, err
			}
		case errno != 0:
			return sent, errno
		default:
			sent += n
		}
	}
	return len(b), nil
}

func (d *descriptor) await(what int16) error {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(d.fd), Events: what}}, 5000)
	if n == 0 && err == nil {
		return os.ErrDeadlineExceeded
	}
	if err == unix.EINTR {
		return nil
	}
	return err
}

func (d *descriptor) Close() error                     { return nil }
func (d *descriptor) LocalAddr() net.Addr              { return nil }
func (d *descriptor) RemoteAddr() net.Addr             { return nil }
func (d *descriptor) SetDeadline(time.Time) error      { return nil }
func (d *descriptor) SetReadDeadline(time.Time) error  { return nil }
func (d *descriptor) SetWriteDeadline(time.Time) error { return nil }

// handshake makes a TLS connection of a descriptor, waiting for it.
func handshake(fd int, cache tls.ClientSessionCache) (*tls.Conn, error) {
	d := &descriptor{fd: fd, patient: true}
	t := tls.Client(d, tlsConfig(cache))
	if err := t.Handshake(); err != nil {
		return nil, err
	}
	d.patient = false
	return t, nil
}

// readTLS reads what is there.
func readTLS(t *tls.Conn, b []byte) (int, syscall.Errno) {
	n, err := t.Read(b)
	switch {
	case n > 0:
		return n, 0
	case err == nil || errors.Is(err, again{}):
		return 0, unix.EAGAIN
	case err == io.EOF:
		return 0, 0
	}
	return 0, unix.EPROTO
}
