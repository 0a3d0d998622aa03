package vip

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// controlServer is the guard's end of the control socket: non-blocking, and polled by the guard's one loop.
type controlServer struct {
	listen int
	guests [4]guest // one is the agent, the others are turned away
	buf    [controlMax]byte
	oob    [128]byte
	out    []byte // the last report
	json   encoder
}

// guest is one connection.
type guest struct {
	fd       int // 0: none
	pid      int
	attached bool
	quitting bool  // refused; may still say quit
	yields   int64 // attached, and would make room for a successor, who has this long to say how it is; 0: would not
}

// errAnotherGuard says that the name is taken.
var errAnotherGuard = errors.New("another guard runs in this network namespace; there can be one only (one node per network namespace)")

func listenControl() (*controlServer, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@" + controlName}); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EADDRINUSE) {
			return nil, errAnotherGuard
		}
		return nil, fmt.Errorf("bind control socket: %w", err)
	}
	if err := unix.Listen(fd, 4); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	return &controlServer{listen: fd}, nil
}

// accept takes new connections from the guard's own user or root.
func (s *controlServer) accept() {
	for {
		fd, _, err := unix.Accept4(s.listen, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			return
		}
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || (cred.Uid != 0 && int(cred.Uid) != os.Geteuid()) {
			unix.Close(fd)
			continue
		}
		seated := false
		for i := range s.guests {
			if g := &s.guests[i]; g.fd == 0 {
				*g = guest{fd: fd, pid: int(cred.Pid)}
				seated = true
				break
			}
		}
		if !seated {
			unix.Close(fd)
		}
	}
}

// agent is the attached guest, or nil.
func (s *controlServer) agent() *guest {
	for i := range s.guests {
		if g := &s.guests[i]; g.fd != 0 && g.attached {
			return g
		}
	}
	return nil
}

// packet is what a guest says.
type packet struct {
	toGuard
	fd      int    // that came with it, or -1
	unknown string // what of it this version does not know; "": it knows all
	err     error  // it can't be read; toGuard is empty
}

// read returns the next packet of a guest. ended: the guest is gone.
func (s *controlServer) read(g *guest) (m packet, ok, ended bool) {
	m.fd = -1
	n, oobn, _, _, err := unix.Recvmsg(g.fd, s.buf[:], s.oob[:], unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return m, false, false
	}
	if err != nil || n <= 0 {
		return m, false, true
	}
	if msgs, err := unix.ParseSocketControlMessage(s.oob[:oobn]); err == nil {
		for _, c := range msgs {
			fds, _ := unix.ParseUnixRights(&c)
			for i, f := range fds {
				if i == 0 && m.fd < 0 {
					m.fd = f
				} else {
					unix.Close(f)
				}
			}
		}
	}
	m.toGuard, m.unknown, m.err = decodeControl[toGuard](s.buf[:n])
	return m, true, false
}

// send writes one packet. A guest that does not read loses it: the next state says more anyway.
func (s *controlServer) send(g *guest, m any) bool {
	b, err := encodeControl(m)
	if err != nil {
		return false
	}
	return unix.Send(g.fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) == nil
}

func (s *controlServer) drop(g *guest) {
	unix.Close(g.fd)
	*g = guest{}
}

func (s *controlServer) close() {
	for i := range s.guests {
		if s.guests[i].fd != 0 {
			s.drop(&s.guests[i])
		}
	}
	unix.Close(s.listen)
}
