package loop

import "golang.org/x/sys/unix"

// Limits of the pool of pipes.
const (
	PipeSize  = 256 << 10 // asked of the kernel; it may grant less
	maxPooled = 64        // empty pipes kept per loop
)

// A Pipe carries bytes from one socket to another inside the kernel. It belongs to the loop that lent it.
type Pipe struct {
	R, W int
	Held int // bytes inside
	Size int // capacity
}

// Pipe lends an empty pipe, or nil when the process can have no more of them: the caller then copies.
func (l *Loop) Pipe() *Pipe {
	if n := len(l.pipes); n > 0 {
		p := l.pipes[n-1]
		l.pipes = l.pipes[:n-1]
		return p
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return nil
	}
	l.open.Add(1)
	p := &Pipe{R: fds[0], W: fds[1], Size: 64 << 10}
	// Beyond the user's soft limit on pipe pages an unprivileged process gets no large pipe; the small one works, more slowly.
	if n, err := unix.FcntlInt(uintptr(p.W), unix.F_SETPIPE_SZ, PipeSize); err == nil {
		p.Size = n
	}
	return p
}

// PutPipe gives a pipe back. One that still holds bytes is closed, since nobody may ever read them.
func (l *Loop) PutPipe(p *Pipe) {
	if p.Held > 0 || len(l.pipes) >= maxPooled {
		l.closePipe(p)
		return
	}
	l.pipes = append(l.pipes, p)
}

// Pipes returns how many pipes there are, those in use and those kept. Any goroutine may call it.
func (l *Loop) Pipes() int64 { return l.open.Load() }

// DropPipes closes the pipes that are kept, and returns how many there were.
func (l *Loop) DropPipes() int {
	n := len(l.pipes)
	for _, p := range l.pipes {
		l.closePipe(p)
	}
	l.pipes = nil
	return n
}

func (l *Loop) closePipe(p *Pipe) {
	Close(p.R)
	Close(p.W)
	l.open.Add(-1)
}
