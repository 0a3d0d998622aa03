package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/healthcheck"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// Inheritance is what a process has from the agent that it follows. That one serves until this one says that it does.
type Inheritance struct {
	conn    *net.UnixConn
	take    take
	sockets []engine.Sockets
}

// former is how it stands with the agent that this process follows.
type former struct {
	followed bool // this process serves in its place
	stop     bool // it passes on that the node shall stop
	ended    bool // it has nothing left that it serves
}

// catchUp is how long a successor waits for the others to bring the end of the log that its predecessor had applied. A cluster without a
// quorum cannot.
const catchUp = 5 * time.Second

// Inherit returns what a running agent has for this process, which it has started to follow it; nil when none has.
func Inherit() (*Inheritance, error) {
	text, ok := os.LookupEnv(successionEnv)
	if !ok {
		return nil, nil
	}
	os.Unsetenv(successionEnv) // not for what we start
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s=%q: want a descriptor", successionEnv, text)
	}
	unix.CloseOnExec(fd)
	conn, err := connOf(os.NewFile(uintptr(fd), "succession"))
	if err != nil {
		return nil, err
	}
	return &Inheritance{conn: conn}, nil
}

// Refuse tells the agent why this process will not follow it. It goes on as before.
func (i *Inheritance) Refuse(why error) {
	if i == nil {
		return
	}
	say(i.conn, toAgent{Problem: cut(why)}) // if it fails, the end of this process says enough
	i.conn.Close()
}

// Take says that this process is ready, and returns when the agent has handed everything over: the log is free to be opened.
func (i *Inheritance) Take(version string) error {
	err := say(i.conn, toAgent{Ready: &heirReady{
		Version: version, PID: os.Getpid(), Guard: vip.Protocol, Level: state.Level, Heartbeats: vip.OwnFormats(),
	}})
	for err == nil {
		var m toHeir
		var fds []int
		if fds, err = hear(i.conn, &m); err != nil {
			break
		}
		for _, s := range m.Sockets {
			if s.N < 0 || s.N > len(fds) {
				engine.Sockets{FDs: fds}.Close()
				return fmt.Errorf("follow the running agent: %d sockets of %v announced, %d are left", s.N, s.Addr, len(fds))
			}
			i.sockets = append(i.sockets, engine.Sockets{Addr: s.Addr, FDs: fds[:s.N:s.N]})
			fds = fds[s.N:]
		}
		engine.Sockets{FDs: fds}.Close()
		if m.Take != nil {
			i.take = *m.Take
			return nil
		}
	}
	return fmt.Errorf("follow the running agent: %w", err)
}

// verdicts is what the checks of the agent found down.
func (i *Inheritance) verdicts() map[healthcheck.Key]bool {
	down := map[healthcheck.Key]bool{}
	for _, name := range i.take.Down {
		if backend, server, ok := strings.Cut(name, "/"); ok {
			down[healthcheck.Key{Backend: backend, Server: server}] = false
		}
	}
	return down
}

// coupleSuccession: this node has what its predecessor had -> the guard, which serves it from then on; the predecessor, which retires.
func (n *Node) coupleSuccession(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { n.inherited.conn.Close() })()
	defer n.former.Update(func(f former) former { f.ended = true; return f })
	if err := n.equal(ctx); err != nil {
		if ctx.Err() == nil {
			n.inherited.Refuse(err)
		}
		return err
	}
	close(n.follow)
	_, err := n.guard.State().Wait(ctx, func(s vip.State) bool { return s.Connected })
	if err != nil {
		return err
	}
	if err := say(n.inherited.conn, toAgent{Serving: true}); err != nil {
		// It has given up on us or has died, and what it has established with it. Somebody has to serve.
		n.log.Error("the former agent does not hear that it is followed", "err", err)
	}
	n.log.Info("took over from the former agent", "sockets", len(n.inherited.sockets))
	if n.serving != nil {
		n.serving()
	}
	n.former.Update(func(f former) former { f.followed = true; return f })
	for {
		var m toHeir
		fds, err := hear(n.inherited.conn, &m)
		if err != nil {
			return nil // it has ended
		}
		engine.Sockets{FDs: fds}.Close()
		if m.Stop {
			n.log.Info("the former agent passes on that this node shall stop")
			n.former.Update(func(f former) former { f.stop = true; return f })
		}
		if len(m.Learned) > 0 {
			n.proposeSticky(ctx, m.Learned)
		}
	}
}

// untilStop returns when this node shall stop: by a signal, or by the word of the agent that it follows. While that one still holds everything and
// has no log any more, there is nobody who could give the addresses away in order: so this process takes over first, if it can.
func (n *Node) untilStop(ctx, life context.Context) {
	asked, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(life, cancel)()
	_, _ = n.former.Wait(asked, func(f former) bool { return f.stop })
	most, enough := context.WithTimeout(life, servingWithin)
	defer enough()
	_, _ = n.former.Wait(most, func(f former) bool { return f.followed })
}

// equal waits until this node has applied what its predecessor had and runs the configuration.
func (n *Node) equal(ctx context.Context) error {
	begin := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := false
	for {
		applied := n.cluster.AppliedIndex()
		if !late && applied > 0 && applied < n.inherited.take.Applied && time.Since(begin) > catchUp {
			late = true
			n.log.Warn("takes over without the end of the log, which no other node brings", "applied", applied, "was", n.inherited.take.Applied)
		}
		if applied > 0 && (late || applied >= n.inherited.take.Applied) {
			want, running := n.machine.Views().Get().Revision.Number, n.running.Get()
			switch {
			case running.Error != "" && running.Tried == want:
				return fmt.Errorf("revision %d is not in force: %s", want, running.Error)
			case running.Revision == want:
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), context.Cause(ctx))
		}
	}
}
