package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/internal/watch"
)

// Options say how an Agent finds or starts its guard.
type Options struct {
	Dir    string          // where a guard that we start writes guard.log
	Binary string          // what to start; empty: /proc/self/exe
	Args   []string        // its arguments; empty: "guard"
	Env    []string        // added to its environment
	Wait   time.Duration   // for a guard that a service manager starts, before we start one
	When   <-chan struct{} // not before this is closed, the guard is looked for; nil: at once
	Log    *slog.Logger
}

// Agent is the node's end of its guard. It keeps a guard running, tells it what is wanted and publishes what it does. Any
// goroutine may call any method.
type Agent struct {
	opts  Options
	page  *page
	state watch.Value[State]

	stop context.CancelFunc
	done chan struct{}
	wake chan struct{} // capacity 1: something below is new

	mu sync.Mutex
	// mu guards the following, the newest of what the guard shall know.
	setup    *Setup
	setupN   uint64 // counts Updates
	fit      fit
	fitN     uint64
	drained  map[string]Epoch
	drainedN uint64
	yield    yield
	yieldN   uint64
	parting  *toGuard // last words; no more after them
	partings chan struct{}
}

// How long things may take between agent and guard, processes of one machine.
const (
	guardStart   = 5 * time.Second        // from exec to an answer on the socket
	guardRetry   = 200 * time.Millisecond // pause after a guard was lost
	guardParting = 2 * time.Second        // for a release before Close gives up on it
	agentStamp   = 20 * time.Millisecond  // the agent's own sign of life in the page
)

// Start finds the guard of this network namespace, or starts one, and keeps at it until Close. It returns at once;
// State tells how it goes.
func Start(opts Options) (*Agent, error) {
	if opts.Log == nil {
		return nil, errors.New("start guard: no logger")
	}
	if opts.Binary == "" {
		opts.Binary = "/proc/self/exe"
	}
	if len(opts.Args) == 0 {
		opts.Args = []string{"guard"}
	}
	p, err := newPage()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &Agent{opts: opts, page: p, stop: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1), partings: make(chan struct{})}
	a.state.Set(State{Problem: "the guard has not answered yet"})
	go a.run(ctx)
	return a, nil
}

// State publishes what the guard sees and does.
func (a *Agent) State() *watch.Value[State] { return &a.state }

// Progress returns n words of the shared page, one for each loop. A loop stores something new in its word at least every 100 ms,
// a counter or a time, and Parked when it ends on purpose. A word that stays the same is a hung loop, and costs the node its
// addresses.
func (a *Agent) Progress(n int) []*atomic.Uint64 {
	n = min(n, MaxLoops)
	words := make([]*atomic.Uint64, n)
	for i := range words {
		words[i] = a.page.word(lineFirst + i)
		words[i].Store(0)
	}
	a.page.word(lineLoops).Store(uint64(n))
	return words
}

// SetFit says whether this node may hold addresses, and if not, why not.
func (a *Agent) SetFit(ok bool, reason string) {
	v := uint64(0)
	if ok {
		v = 1
	}
	a.page.word(lineFit).Store(v)
	a.mu.Lock()
	a.fit, a.fitN = fit{Fit: ok, Reason: reason}, a.fitN+1
	a.mu.Unlock()
	a.poke()
}

// Update tells the guard what is wanted from now on.
func (a *Agent) Update(s Setup) error {
	if err := s.Check(); err != nil {
		return fmt.Errorf("guard setup: %w", err)
	}
	a.mu.Lock()
	a.setup, a.setupN = &s, a.setupN+1
	a.mu.Unlock()
	a.poke()
	return nil
}

// Drained says that nothing is left of what a parked VIP had established when it was held at that epoch.
func (a *Agent) Drained(vip string, e Epoch) {
	a.mu.Lock()
	next := map[string]Epoch{vip: e}
	for v, e := range a.drained {
		if v != vip {
			next[v] = e
		}
	}
	a.drained, a.drainedN = next, a.drainedN+1
	a.mu.Unlock()
	a.poke()
}

// Close releases every address, ends the guard and waits for both.
func (a *Agent) Close() { a.part(&toGuard{Quit: true}) }

// Yield tells the guard to serve another agent, on this host and of this user, as soon as it comes: what is held stays held, and the
// successor has grace to say how it is. Until it comes everything stays as it is; when it has, this agent hears no more. A zero grace
// takes it back.
func (a *Agent) Yield(grace time.Duration) {
	a.mu.Lock()
	a.yield, a.yieldN = yield{Grace: grace}, a.yieldN+1
	a.mu.Unlock()
	a.poke()
}

func (a *Agent) part(words *toGuard) {
	a.mu.Lock()
	first := a.parting == nil
	if first {
		a.parting = words
	}
	a.mu.Unlock()
	if first {
		a.poke()
		t := time.NewTimer(guardParting + time.Second)
		defer t.Stop()
		select {
		case <-a.partings:
		case <-a.done:
		case <-t.C:
		}
	}
	a.stop()
	<-a.done
}

func (a *Agent) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// run keeps one conversation after another until ctx ends.
func (a *Agent) run(ctx context.Context) {
	defer close(a.done)
	defer unix.Close(a.page.fd) // the mapping stays: loops may stamp for a moment longer than the agent lives
	var stamps sync.WaitGroup
	stamps.Go(func() { a.stamp(ctx) })
	defer stamps.Wait()
	if a.opts.When != nil {
		select {
		case <-a.opts.When:
		case <-ctx.Done():
			return
		}
	}
	last := ""
	for ctx.Err() == nil {
		err := a.converse(ctx)
		if ctx.Err() != nil || a.leaving() {
			return
		}
		if a.succeeded() {
			a.state.Update(func(s State) State {
				s.Connected, s.Problem, s.Held = false, "the guard serves the successor of this agent", nil
				return s
			})
			return
		}
		if err.Error() != last {
			a.opts.Log.Error("guard lost", "err", err)
			last = err.Error()
		}
		a.state.Update(func(s State) State {
			s.Connected, s.Problem, s.Unknown, s.Held = false, err.Error(), "", nil
			return s
		})
		select {
		case <-time.After(guardRetry):
		case <-ctx.Done():
		}
	}
}

func (a *Agent) leaving() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.parting != nil
}

// succeeded reports whether the end of a conversation is what was asked for.
func (a *Agent) succeeded() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.yield.Grace > 0
}

// stamp writes the agent's own sign of life. It shows the guard a stopped process even when no loop runs.
func (a *Agent) stamp(ctx context.Context) {
	t := time.NewTicker(agentStamp)
	defer t.Stop()
	for {
		a.page.word(lineAgent).Add(1)
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// converse connects to a guard, starting one if need be, and talks until one side ends it. The error is never nil.
func (a *Agent) converse(ctx context.Context) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	var writer sync.WaitGroup
	ended := make(chan struct{})
	defer writer.Wait()
	defer close(ended)
	defer conn.Close()
	stopped := context.AfterFunc(ctx, func() { conn.Close() })
	defer stopped()
	writer.Go(func() { a.write(conn, ended) })

	buf := make([]byte, controlMax)
	for {
		n, err := conn.Read(buf)
		if err != nil || n == 0 {
			return fmt.Errorf("the guard ended the conversation: %w", errors.Join(err, io0(n)))
		}
		if err := a.hear(buf[:n]); err != nil {
			return err
		}
	}
}

// hear takes a packet of the guard. What this version does not know of it, it passes over: a guard reports, and nothing hangs on
// what nobody here knows.
func (a *Agent) hear(b []byte) error {
	m, _, err := decodeControl[toAgent](b)
	if err != nil {
		return fmt.Errorf("read from guard: %w", err)
	}
	switch {
	case m.State != nil:
		s := m.State.state(time.Now())
		a.state.Update(func(old State) State {
			s.Connected, s.Problem, s.Unknown = true, old.Problem, old.Unknown
			if !old.Connected {
				s.Problem = ""
			}
			return s
		})
	case m.Problem != "" || m.Taken:
		a.state.Update(func(s State) State { s.Problem, s.Unknown = m.Problem, m.Unknown; return s })
	case m.Unknown != "":
		a.state.Update(func(s State) State { s.Unknown = m.Unknown; return s })
	}
	return nil
}

var errEnded = errors.New("end of file")

func io0(n int) error {
	if n == 0 {
		return errEnded
	}
	return nil
}

// write sends what is new, the newest only, until the conversation has ended or the last words are said.
func (a *Agent) write(conn *net.UnixConn, ended <-chan struct{}) {
	var setupN, fitN, drainedN, yieldN uint64
	send := func(m toGuard) bool {
		b, err := encodeControl(m)
		if err != nil {
			a.opts.Log.Error("guard message", "err", err)
			return true
		}
		if _, err := conn.Write(b); err != nil {
			conn.Close()
			return false
		}
		return true
	}
	for {
		a.mu.Lock()
		setup, fit, parting := a.setup, a.fit, a.parting
		newSetup, newFit := a.setupN != setupN, a.fitN != fitN
		setupN, fitN = a.setupN, a.fitN
		drained, newDrained := a.drained, a.drainedN != drainedN
		drainedN = a.drainedN
		making, newYield := a.yield, a.yieldN != yieldN
		yieldN = a.yieldN
		a.mu.Unlock()
		if newFit && !send(toGuard{Fit: &fit}) {
			return
		}
		if newSetup && parting == nil && !send(toGuard{Setup: setup}) {
			return
		}
		if newDrained && !send(toGuard{Drained: drained}) {
			return
		}
		if newYield && !send(toGuard{Yield: &making}) {
			return
		}
		if parting != nil {
			if send(*parting) {
				select {
				case <-ended: // the guard has released and closed its end
				case <-time.After(guardParting):
				}
			}
			close(a.partings)
			return
		}
		select {
		case <-a.wake:
		case <-ended:
			a.poke() // what woke us may be for the next conversation
			return
		}
	}
}

// connect returns a guard's socket after hello and welcome. A guard of another protocol is asked to end and replaced.
func (a *Agent) connect(ctx context.Context) (*net.UnixConn, error) {
	begin := time.Now()
	deadline := begin.Add(a.opts.Wait + guardStart)
	started, exited := false, make(chan error, 1)
	var other error // there is a guard of another protocol
	for {
		conn, err := a.greet()
		switch {
		case err == nil:
			return conn, nil
		case errors.Is(err, errProtocol):
			if other == nil {
				a.opts.Log.Info("guard replaced", "why", err)
			}
			other = err
		case !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT):
			return nil, err
		case !started && time.Since(begin) >= a.opts.Wait:
			if err := a.spawn(exited); err != nil {
				return nil, err
			}
			started = true
		}
		if time.Now().After(deadline) && other != nil {
			return nil, other
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("no guard answered within %v; see %s", a.opts.Wait+guardStart, a.logPath())
		}
		select {
		case err := <-exited:
			return nil, fmt.Errorf("the guard ended at once (%w); see %s", err, a.logPath())
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

var errProtocol = errors.New("the guard speaks another protocol")

// greet dials the guard and says hello.
func (a *Agent) greet() (*net.UnixConn, error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: "@" + controlName, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("dial guard: %w", err)
	}
	conn.SetDeadline(time.Now().Add(guardStart))
	err = func() error {
		b, err := encodeControl(toGuard{Hello: &hello{Protocol: controlProtocol}})
		if err != nil {
			return err
		}
		if _, _, err := conn.WriteMsgUnix(b, unix.UnixRights(a.page.fd), nil); err != nil {
			return fmt.Errorf("greet guard: %w", err)
		}
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err != nil {
			return fmt.Errorf("greet guard: %w", err)
		}
		m, _, err := decodeControl[toAgent](buf[:n])
		if err != nil {
			return fmt.Errorf("greet guard: %w", err)
		}
		switch {
		case m.Welcome != nil && m.Welcome.Protocol == controlProtocol:
			return nil
		case m.Refused != nil && m.Refused.Protocol == controlProtocol:
			return fmt.Errorf("the guard refused us: %s", m.Refused.Why)
		}
		conn.Write([]byte(`{"quit":true}`)) // understood by every protocol
		if m.Refused != nil {
			return fmt.Errorf("%w than this agent, which speaks %d: %s", errProtocol, controlProtocol, m.Refused.Why)
		}
		return errProtocol
	}()
	if err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	return conn, nil
}

func (a *Agent) logPath() string { return filepath.Join(a.opts.Dir, "guard.log") }

// spawn starts a guard in a session of its own: it outlives us, to say that we died and to go on granting.
func (a *Agent) spawn(exited chan<- error) error {
	if st, err := os.Stat(a.logPath()); err == nil && st.Size() > 1<<20 {
		os.Rename(a.logPath(), a.logPath()+".1")
	}
	out, err := os.OpenFile(a.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("open guard log: %w", err)
	}
	defer out.Close()
	cmd := exec.Command(a.opts.Binary, a.opts.Args...)
	cmd.Env = append(os.Environ(), a.opts.Env...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start guard: %w", err)
	}
	a.opts.Log.Info("guard started", "pid", cmd.Process.Pid)
	go func() { // ends with the guard, which may be after us
		err := cmd.Wait()
		if err == nil {
			err = errors.New("exit status 0")
		}
		exited <- err
	}()
	return nil
}
