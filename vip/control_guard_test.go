package vip

import (
	"log/slog"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A guest that is turned away is gone: its seat has no descriptor any more, and what the number of none, 0, stands for in this process
// is not the guest's to be read or closed. The guard would go on to lose a socket of its own.
func TestAGuestThatIsTurnedAwayTakesNothingWithIt(t *testing.T) {
	g := newGuard(GuardOptions{})
	g.log = slog.New(slog.DiscardHandler)
	g.ctl, g.m = &controlServer{listen: -1}, newMachine(0, 1, false)
	seat := func(i int) (theirs int) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		g.ctl.guests[i] = guest{fd: fds[0], pid: os.Getpid()}
		return fds[1]
	}
	defer unix.Close(seat(0))
	g.ctl.guests[0].attached = true
	defer unix.Close(g.ctl.guests[0].fd)
	stranger := seat(1)
	defer unix.Close(stranger)
	before, err := os.Stat("/proc/self/fd/0")
	if err != nil {
		t.Fatal(err)
	}

	if _, err := unix.Write(stranger, []byte(`{"hello":{"protocol":1}}`)); err != nil {
		t.Fatal(err)
	}
	g.hearGuest(&g.ctl.guests[1])
	var answer [4096]byte
	if n, _ := unix.Read(stranger, answer[:]); n <= 0 {
		t.Error("it was not told why")
	}
	if n, err := unix.Read(stranger, answer[:]); n != 0 {
		t.Errorf("it is still served: %d bytes, %v", n, err)
	}
	if after, err := os.Stat("/proc/self/fd/0"); err != nil || !os.SameFile(before, after) {
		t.Errorf("the guard's own descriptor 0 was closed: %v", err)
	}
}
