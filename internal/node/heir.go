package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/vip"
)

// This file is an agent that is followed by another process on the same host: a new binary, or the same one with another node.hcl.
//
// Until the successor serves, this process accepts and serves, and the guard watches it; it gives away the log alone. A successor that
// fails is replaced by one more of the binary that runs here, so that a bad binary costs nothing but a moment without control plane.

// heir is a process that is to follow this one.
type heir struct {
	version    string
	level      int
	heartbeats vip.Formats   // that a guard of its version reads
	drain      time.Duration // what is established here may take so long
	pid        int
	conn       *net.UnixConn
	proc       *os.Process
	ended      chan struct{} // closed when the process has ended
	status     error         // how; valid once ended is closed
}

// ownImage starts the binary that runs here, whatever lies at its path by now.
const ownImage = "/proc/self/exe"

// errDone is the status of a process that ended as it should: it was stopped, or has been followed itself.
var errDone = errors.New("exit status 0")

// errSuccessor is what went wrong with a process that was to follow.
var errSuccessor = errors.New("the new agent does not take over")

// errGuard says that the guard has to be replaced too, for which the address has to go.
var errGuard = errors.New("it cannot follow in place")

// startHeir starts binary as this process was started, and returns when it has said that it is ready.
func startHeir(ctx context.Context, binary string, argv []string) (*heir, error) {
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary)
	cmd.Args = slices.Clone(argv)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, successionEnv+"=") }), successionEnv+"=3")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("%w: start %s: %w", errSuccessor, binary, err)
	}
	h := &heir{pid: cmd.Process.Pid, conn: ours, proc: cmd.Process, ended: make(chan struct{})}
	go func() { // ends with the process, which may be after us
		if h.status = cmd.Wait(); h.status == nil {
			h.status = errDone
		}
		close(h.ended)
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("it said nothing for %v", readyWithin))
	defer cancel()
	m, err := h.hear(ctx)
	if err == nil && m.Ready == nil {
		err = errors.New("it did not say who it is")
	}
	if err == nil && m.Ready.Guard != vip.Protocol {
		err = fmt.Errorf("%w: %s speaks protocol %d with its guard, and the guard that runs %d", errGuard, m.Ready.Version, m.Ready.Guard, vip.Protocol)
	}
	if err != nil {
		h.kill()
		return nil, fmt.Errorf("%w: %s: %w", errSuccessor, binary, err)
	}
	h.version, h.level, h.heartbeats = m.Ready.Version, max(1, m.Ready.Level), m.Ready.Heartbeats
	return h, nil
}

// hear returns the next thing that it says, of what this version knows. A problem is an error.
func (h *heir) hear(ctx context.Context) (toAgent, error) {
	stop := context.AfterFunc(ctx, func() { h.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var m toAgent
	var err error
	for err == nil && m == (toAgent{}) { // a newer version may say more
		_, err = hear(h.conn, &m)
	}
	switch {
	case ctx.Err() != nil:
		return m, context.Cause(ctx)
	case err != nil:
		select {
		case <-h.ended:
			return m, fmt.Errorf("it ended: %w; its last words are in the agent's log", h.status)
		case <-time.After(time.Second):
			return m, err
		}
	case m.Problem != "":
		return m, errors.New(m.Problem)
	}
	return m, nil
}

// kill ends the process and waits until it holds nothing any more.
func (h *heir) kill() {
	h.proc.Kill()
	<-h.ended
	h.conn.Close()
}

// give hands over what sockets and t say, and returns when the successor serves.
func (h *heir) give(ctx context.Context, sockets []engine.Sockets, t take) error {
	ctx, cancel := context.WithTimeoutCause(ctx, servingWithin, fmt.Errorf("it did not serve within %v", servingWithin))
	defer cancel()
	for _, p := range packets(sockets) {
		var names []wireSockets
		var fds []int
		for _, s := range p {
			names, fds = append(names, wireSockets{s.Addr, len(s.FDs)}), append(fds, s.FDs...)
		}
		if err := say(h.conn, toHeir{Sockets: names}, fds...); err != nil {
			return fmt.Errorf("hand over sockets: %w", err)
		}
	}
	if err := say(h.conn, toHeir{Take: &t}); err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	m, err := h.hear(ctx)
	if err == nil && !m.Serving {
		err = errors.New("it did not say that it serves")
	}
	return err
}

// Successor is a process that is ready to follow this one.
type Successor struct {
	Version string
	PID     int
}

// Upgrade starts what lies at the path of this program and, once that is ready, has Run hand over to it. What is established here is
// served for drain. An error means that nothing has changed.
func (n *Node) Upgrade(ctx context.Context, drain time.Duration) (Successor, error) {
	if _, ok := n.guard.(yielder); n.program == "" || !ok {
		return Successor{}, errors.New("this agent was not started from a file that could be started again")
	}
	if !n.upgrading.CompareAndSwap(false, true) {
		return Successor{}, errors.New("another upgrade of this node is under way")
	}
	h, err := n.readyHeir(ctx)
	if err == nil {
		h.drain = drain
		n.log.Info("the new agent is ready", "pid", h.pid, "version", h.version, "was", n.version)
		select {
		case n.heirs <- h:
			return Successor{Version: h.version, PID: h.pid}, nil
		case <-n.ending:
			h.kill()
			err = errEnding
		}
	}
	n.upgrading.Store(false)
	n.log.Error("upgrade refused", "binary", n.program, "why", err)
	return Successor{}, err
}

// errEnding says that a node is on its way out: it gives away what another process would take over.
var errEnding = errors.New("this node is stopping")

// readyHeir refuses what would lose something.
func (n *Node) readyHeir(ctx context.Context) (*heir, error) {
	if err := n.cannotFollow(); err != nil {
		return nil, err
	}
	h, err := startHeir(ctx, n.program, append([]string{n.program}, os.Args[1:]...))
	if err != nil {
		return nil, err
	}
	err = n.cannotFollow()
	if level := n.machine.Views().Get().Level(); err == nil && h.level < level {
		err = fmt.Errorf("%w: %s applies commands up to level %d, and the cluster is at level %d", errOld, h.version, h.level, level)
	}
	if why := tooFar(h.heartbeats, n.conf.Name, n.guard.State().Get()); err == nil && why != "" {
		err = fmt.Errorf("%w: a guard of %s reads heartbeats of %v, and %s", errFar, h.version, h.heartbeats, why)
	}
	if err != nil {
		h.kill()
		return nil, err
	}
	return h, nil
}

// errFar says that guards have to be restarted before a version is followed by the next.
var errFar = errors.New("its guard would not be understood by one that runs")

// tooFar says which of the guards that run would not understand one that reads f; "": all would. A guard runs until it is restarted, however
// often its agent is upgraded; the first to be restarted as too new a version would hear nobody, and the second would cost the quorum.
func tooFar(f vip.Formats, self string, seen vip.State) string {
	silent := vip.Formats{}
	if f == silent {
		return "" // a version that says nothing; what it reads it will say itself
	}
	if r := seen.Reads; r != silent && !f.Meet(r) {
		return fmt.Sprintf("the one of %s, of an older version than its agent, reads %v", self, r)
	}
	for _, name := range slices.Sorted(maps.Keys(seen.Peers)) {
		if p := seen.Peers[name]; p.Alive && p.Reads != silent && !f.Meet(p.Reads) {
			return fmt.Sprintf("the one of %s, of an older version than its agent, reads %v", name, p.Reads)
		}
	}
	return ""
}

// cannotFollow is why no process could follow this one now. The newest configuration is all that the log gives to another process: while it
// is not in force here, this one alone can serve.
func (n *Node) cannotFollow() error {
	select {
	case <-n.ending:
		return errEnding
	default:
	}
	if r := n.running.Get(); r.Error != "" && n.machine.Views().Get().ConfigError == nil {
		return fmt.Errorf("%w: revision %d: %s", errBehind, r.Tried, r.Error)
	}
	return n.handOverBusy()
}

// errBehind says that a node serves an older configuration than the newest. One that is too new for this version may be read by the next.
var errBehind = errors.New("the newest configuration is not in force here, and another process could not go on with the one that is")

// handOverBusy is why this process cannot be followed now: while established connections are handed from node to node, they depend on
// what it has set up in the kernel.
func (n *Node) handOverBusy() error {
	seen := n.guard.State().Get()
	if len(seen.Parked) > 0 || n.hands != nil && len(handsOf(n.conf.Name, n.machine.Views().Get(), seen)) > 0 {
		return ErrMoving
	}
	return nil
}

// ErrMoving says that a node cannot be upgraded at the moment.
var ErrMoving = errors.New("connections of an address that has moved are still being handed over here")

// handOn ends the control plane and gives everything else to h. It returns nil when a successor serves, and what is left here is the
// established connections. end ends the control plane, and waits for it. A node that shall stop meanwhile goes through with it, since without a
// control plane it can give nothing away in order.
func (n *Node) handOn(ctx context.Context, h *heir, end func()) (*heir, error) {
	begin := time.Now()
	n.log.Info("handing over to the new agent", "pid", h.pid, "version", h.version)
	if n.cluster.Leadership().Get().Self {
		if err := n.cluster.Transfer(""); err != nil {
			n.log.Info("leadership not handed over", "why", err)
		}
	}
	n.cluster.Return()
	n.guard.(yielder).Yield(yieldGrace)
	t := take{Loops: n.loops, Down: n.down(), Applied: n.cluster.AppliedIndex()}
	end()
	n.closeHandover() // the successor has its own, of the same names
	var sockets []engine.Sockets
	if e, ok := n.engine.(socketed); ok {
		var err error
		if sockets, err = e.Sockets(); err != nil {
			n.log.Error("the listening sockets cannot be handed over", "err", err)
		}
	}
	defer func() {
		for _, s := range sockets {
			s.Close()
		}
	}()
	err := h.give(ctx, sockets, t)
	if err == nil {
		n.log.Info("the new agent serves", "pid", h.pid, "version", h.version, "after", time.Since(begin).Round(time.Millisecond))
		return h, nil
	}
	h.kill()
	n.log.Error("the new agent failed; this binary goes on", "version", h.version, "why", err)
	t.Failed = &failedUpgrade{PID: h.pid, Version: h.version, Why: cut(err), At: time.Now()}
	own, err := startHeir(ctx, ownImage, append([]string{n.program}, os.Args[1:]...))
	if err != nil {
		return nil, err
	}
	own.drain = h.drain
	if err := own.give(ctx, sockets, t); err != nil {
		own.kill()
		return nil, fmt.Errorf("%w: %w", errSuccessor, err)
	}
	n.log.Info("this binary goes on in another process", "pid", own.pid, "after", time.Since(begin).Round(time.Millisecond))
	return own, nil
}

// retire serves what is established here until it has ended, h.drain is over, or ctx has ended and drain is over too; idle connections are closed
// before that, as in leave. When h fails meanwhile, this is over at once: its end is reported to its parent, which is this process, and whoever
// is to start another learns of it by our end.
func (n *Node) retire(ctx context.Context, h *heir, drain time.Duration) {
	if n.engine == nil {
		h.conn.Close()
		return
	}
	most, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.drain)
	defer cancel()
	polite := min(drain/2, politeMost)
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(polite, cancel) })
	defer stop()
	var late sync.WaitGroup
	defer late.Wait()
	done := make(chan struct{})
	defer close(done)
	late.Go(func() { n.tellLate(h, done) })
	late.Go(func() {
		select {
		case <-h.ended:
			if h.status != errDone {
				n.log.Error("the agent that followed this one has failed; this one ends too, for another to be started", "pid", h.pid, "why", h.status)
				cancel()
			}
		case <-done:
		}
	})
	if e, ok := n.engine.(socketed); ok {
		if err := e.Retire(most); err != nil {
			n.log.Info("what is left is closed", "why", err)
		}
	}
	rest := time.Second // for what ends within a moment
	if ctx.Err() != nil {
		rest = max(rest, drain-polite)
	}
	last, enough := context.WithTimeout(context.Background(), rest)
	defer enough()
	n.engine.Drain(last)
	n.log.Info("the former agent ends")
}

// stopHeir passes on to h, which serves, that the node shall stop: this process was told so while that one took over. The function returned waits until
// it has: the end of this process is what a service manager waits for, and says that the node has stopped.
func (n *Node) stopHeir(h *heir, drain time.Duration) (stopped func()) {
	n.log.Info("the new agent is told to stop", "pid", h.pid)
	if err := say(h.conn, toHeir{Stop: true}); err != nil {
		n.log.Error("the new agent does not hear that it shall stop", "pid", h.pid, "err", err)
	}
	most := time.NewTimer(drain + stopWithin)
	return func() {
		defer most.Stop()
		select {
		case <-h.ended:
		case <-most.C:
		}
	}
}

// abandon ends what is left when nobody follows: the address goes, and what is under way may finish.
func (n *Node) abandon(drain time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	n.letGo()
	n.drainEngine(ctx)
}

// tellLate hands sticky entries that the loops learn here after the log is gone to the successor.
func (n *Node) tellLate(h *heir, done <-chan struct{}) {
	defer h.conn.Close()
	tick := time.NewTicker(lateEvery)
	defer tick.Stop()
	for {
		for n.machine.Tables().Pending() > 0 {
			batch, entries := n.machine.Tables().Drain(stickyBatch)
			if entries == 0 {
				break
			}
			h.conn.SetWriteDeadline(time.Now().Add(time.Second))
			if err := say(h.conn, toHeir{Learned: batch}); err != nil {
				n.machine.Tables().Abandon(batch)
				return // the successor has ended, or been followed itself
			}
		}
		select {
		case <-tick.C:
		case <-done:
			return
		}
	}
}

const lateEvery = 100 * time.Millisecond

// yielder is a guard that can serve a successor, socketed an engine whose sockets can be handed over: *vip.Agent and *engine.Engine.
type (
	yielder  interface{ Yield(grace time.Duration) }
	socketed interface {
		Sockets() ([]engine.Sockets, error)
		Retire(context.Context) error
	}
)

// down is what the checks find down, for the successor to begin with.
func (n *Node) down() (names []string) {
	if n.engine == nil {
		return nil
	}
	for k, v := range n.checker.Verdicts().Get() {
		if !v.Up {
			names = append(names, k.String())
		}
	}
	slices.Sort(names)
	return fitting(names, downMax)
}

// fitting is as many of the names as take up to max bytes in a packet.
func fitting(names []string, max int) []string {
	for i, name := range names {
		if max -= len(name) + len(`"",`); max < 0 {
			return names[:i]
		}
	}
	return names
}

// cut is the text of an error as it fits a packet.
func cut(err error) string {
	text := err.Error()
	return text[:min(len(text), whyMax)]
}

// ProgramPath finds the file that this process was started from by its first argument, as it would be found again: a link may point to
// another version by then.
func ProgramPath(arg0 string) string {
	if p, err := exec.LookPath(arg0); err == nil {
		if p, err = filepath.Abs(p); err == nil {
			return p
		}
	}
	p, err := os.Executable()
	if err != nil {
		return ""
	}
	return p
}
