package vip

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// slowKernel is the other end of a diagSocket. It answers what it is asked when it is told to.
type slowKernel struct {
	t  *testing.T
	fd int
}

func askingSlowKernel(t *testing.T) (*diagSocket, slowKernel) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return &diagSocket{fd: fds[0], buf: make([]byte, 64<<10)}, slowKernel{t, fds[1]}
}

// asked returns the number of the next request.
func (k slowKernel) asked() (seq uint32) {
	k.t.Helper()
	buf := make([]byte, 4096)
	if n, err := unix.Read(k.fd, buf); err != nil || n < unix.SizeofNlMsghdr {
		k.t.Fatalf("no request: %d bytes, %v", n, err)
	}
	return binary.NativeEndian.Uint32(buf[8:])
}

func (k slowKernel) says(seq uint32, typ uint16, body []byte) {
	k.t.Helper()
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_MULTI)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = append(append(b, 0, 0, 0, 0), body...)
	if err := unix.Send(k.fd, b, 0); err != nil {
		k.t.Fatal(err)
	}
}

// connection is an inet_diag_msg of a client of 192.0.2.10:80.
func connection(clientPort uint16) []byte {
	b := make([]byte, diagMsgSize)
	b[0], b[1] = unix.AF_INET, stateEstablished
	binary.BigEndian.PutUint16(b[4:], 80)
	binary.BigEndian.PutUint16(b[6:], clientPort)
	copy(b[8:], []byte{192, 0, 2, 10})
	copy(b[24:], []byte{198, 51, 100, 7})
	return b
}

// The kernel answers a request after it was given up. What it says then is no answer to the next one: neither a connection of that list, nor
// its end, nor its error.
func TestALateAnswerIsNotThatToTheNextRequest(t *testing.T) {
	vips := []netip.Addr{netip.MustParseAddr("192.0.2.10")}
	for _, late := range []struct {
		what string
		typ  uint16
		body []byte
	}{
		{"a connection", diagByFamily, connection(1000)},
		{"the end", unix.NLMSG_DONE, make([]byte, 4)},
		{"an error", unix.NLMSG_ERROR, binary.NativeEndian.AppendUint32(nil, ^uint32(unix.ENOENT)+1)},
	} {
		d, kernel := askingSlowKernel(t)
		if err := d.each(vips, established, func(Flow, byte, []byte) {}); err == nil {
			t.Fatal("an answer that does not come is an answer")
		}
		former := kernel.asked()
		kernel.says(former, late.typ, late.body)
		next := former + 1
		kernel.says(next, diagByFamily, connection(2000))
		kernel.says(next, unix.NLMSG_DONE, make([]byte, 4))
		var ports []uint16
		err := d.each(vips, established, func(fl Flow, _ byte, _ []byte) { ports = append(ports, fl.Client.Port()) })
		if err != nil || len(ports) != 1 || ports[0] != 2000 {
			t.Errorf("%s came late: clients %v, %v; want 2000", late.what, ports, err)
		}
		if got := kernel.asked(); got != next {
			t.Errorf("%s: request %d after %d", late.what, got, former)
		}
	}
}
