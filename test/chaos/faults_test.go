package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/fleet"
	"github.com/skeinlb/skein/internal/lab/stage"
)

// fault is something that goes wrong on a node, and what ends it.
type fault struct {
	name string
	most time.Duration // it lasts for up to this
	do   func(*arena, *fleet.Node) error
	undo func(*arena, *fleet.Node) error
	// harmless: the node votes on. two is for how long two may answer.
	harmless bool
	two      time.Duration
}

// strike is a fault on a node.
type strike struct {
	fault
	victim *fleet.Node
	lasts  time.Duration
}

func (a *arena) pick(n *fleet.Node) strike {
	f := faults[a.random.IntN(len(faults))]
	return strike{f, n, time.Duration(a.random.Int64N(int64(f.most))).Round(time.Millisecond)}
}

var faults = []fault{
	{name: "agent stopped", most: 4 * time.Second, do: toAgent(unix.SIGSTOP), undo: toAgent(unix.SIGCONT)},
	{name: "guard stopped", most: 4 * time.Second, do: toGuard(unix.SIGSTOP), undo: toGuard(unix.SIGCONT)},
	{
		name: "agent and guard stopped", most: 4 * time.Second, two: stoppedTwo,
		do:   func(_ *arena, n *fleet.Node) error { return n.Host.Signal(unix.SIGSTOP) },
		undo: func(_ *arena, n *fleet.Node) error { return n.Host.Signal(unix.SIGCONT) },
	},
	{name: "agent killed", most: 2 * time.Second, do: toAgent(unix.SIGKILL), undo: restart},
	{name: "guard killed", most: 2 * time.Second, do: toGuard(unix.SIGKILL), undo: nothing},
	{name: "agent and guard killed", most: 3 * time.Second, do: func(_ *arena, n *fleet.Node) error { return n.Host.Kill() }, undo: restart},
	{name: "agent ended", most: 3 * time.Second, do: toAgent(unix.SIGTERM), undo: restart},
	{name: "cut off from all", most: 4 * time.Second, do: func(a *arena, n *fleet.Node) error { return a.World.Cut(n.Host) }, undo: heal},
	{
		name: "cut off from the nodes", most: 4 * time.Second, undo: heal,
		do: func(a *arena, n *fleet.Node) error { return a.World.Partition([]*lab.Host{n.Host}, a.others(n)) },
	},
	{name: "not heard by the nodes", most: 4 * time.Second, do: func(a *arena, n *fleet.Node) error { return a.oneWay(n, true) }, undo: heal},
	{name: "not hearing the nodes", most: 4 * time.Second, do: func(a *arena, n *fleet.Node) error { return a.oneWay(n, false) }, undo: heal},
	{name: "cable cut", most: 3 * time.Second, do: func(a *arena, n *fleet.Node) error { return a.World.Unplug(n.Host) }, undo: heal},
	{
		name: "power cut", most: 3 * time.Second,
		do: func(a *arena, n *fleet.Node) error { return errors.Join(a.World.Cut(n.Host), n.Host.Kill()) },
		undo: func(a *arena, n *fleet.Node) error {
			return errors.Join(a.World.Heal(), restart(a, n))
		},
	},
	{name: "loop stuck", most: 3 * time.Second, do: freeze, undo: thaw},
	{name: "disk full", most: 3 * time.Second, do: fill, undo: empty},
	{name: "rules flushed", most: time.Second, harmless: true, do: func(_ *arena, n *fleet.Node) error { return n.Host.FlushRules() }, undo: nothing},
	{name: "address taken off", most: time.Second, harmless: true, do: takeOff, undo: nothing},
	{
		name: "interface down", most: 3 * time.Second,
		do:   func(_ *arena, n *fleet.Node) error { return n.Host.SetLink(lab.Interface, false) },
		undo: func(_ *arena, n *fleet.Node) error { return n.Host.SetLink(lab.Interface, true) },
	},
	{name: "address moved", most: 2 * time.Second, harmless: true, do: operate("vip", "move", "public", "--no-wait"), undo: nothing},
	{
		name: "node drained", most: 3 * time.Second, harmless: true, undo: enable,
		do: func(a *arena, n *fleet.Node) error { return operate("node", "drain", n.Name, "--no-wait")(a, n) },
	},
	{name: "web server dead", most: 3 * time.Second, harmless: true, do: serverDies, undo: serverIsBack},
	{name: "web server ill", most: 3 * time.Second, harmless: true, do: serverIll(true), undo: serverIll(false)},
}

func nothing(*arena, *fleet.Node) error { return nil }

// heal heals what the world has cut. Two faults end at the same time, so that it may heal both.
func heal(a *arena, _ *fleet.Node) error { return a.World.Heal() }

func toAgent(sig unix.Signal) func(*arena, *fleet.Node) error {
	return func(_ *arena, n *fleet.Node) error { return n.Agent().Signal(sig) }
}

func toGuard(sig unix.Signal) func(*arena, *fleet.Node) error {
	return func(_ *arena, n *fleet.Node) error {
		pid, err := guardOf(n)
		if err != nil {
			return err
		}
		return unix.Kill(pid, sig)
	}
}

// guardOf finds the guard among the processes of a node.
func guardOf(n *fleet.Node) (int, error) {
	pids, err := n.Host.Processes()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if words := strings.Split(string(line), "\x00"); err == nil && len(words) > 1 && words[1] == "guard" {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("no guard runs on %s", n.Name)
}

// restart starts an agent that has ended, or that is about to.
func restart(_ *arena, n *fleet.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), bootPatience)
	defer cancel()
	select {
	case <-n.Agent().Done():
	case <-ctx.Done():
		return fmt.Errorf("the agent of %s does not end", n.Name)
	}
	if err := n.Start(); err != nil {
		return err
	}
	return n.Ready(ctx)
}

// others are the hosts of the other nodes.
func (a *arena) others(n *fleet.Node) (hs []*lab.Host) {
	for _, o := range a.fleet.Nodes() {
		if o != n {
			hs = append(hs, o.Host)
		}
	}
	return hs
}

// oneWay cuts what n says to the other nodes, or what they say to n.
func (a *arena) oneWay(n *fleet.Node, says bool) error {
	for _, o := range a.others(n) {
		from, to := n.Host, o
		if !says {
			from, to = to, from
		}
		if err := a.World.CutOneWay(from, to); err != nil {
			return err
		}
	}
	return nil
}

func freeze(a *arena, n *fleet.Node) error {
	threads, err := n.Agent().Threads()
	if err != nil {
		return err
	}
	for tid, name := range threads {
		if name == "skein-loop" {
			a.thaw[n.Name], err = lab.Freeze(tid)
			return err
		}
	}
	return fmt.Errorf("%s has no loop among its threads %v", n.Name, threads)
}

func thaw(a *arena, n *fleet.Node) error {
	f := a.thaw[n.Name]
	if f == nil {
		return nil
	}
	delete(a.thaw, n.Name)
	return f()
}

// fill writes until the disk of the node's log has no room.
func fill(_ *arena, n *fleet.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), bootPatience)
	defer cancel()
	_, err := n.Host.Output(ctx, "/bin/sh", "-c", fmt.Sprintf("cat /dev/zero >%s 2>/dev/null || true", filler(n)))
	return err
}

// empty makes room again. A node whose log could not be written acknowledges nothing any more, until it is started again: whether it was
// so far is chance.
func empty(a *arena, n *fleet.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), bootPatience)
	defer cancel()
	if _, err := n.Host.Output(ctx, "/bin/rm", "-f", filler(n)); err != nil {
		return err
	}
	if err := n.Agent().Signal(unix.SIGTERM); err != nil {
		return err
	}
	return restart(a, n)
}

func filler(n *fleet.Node) string { return filepath.Join(logDir(n), "filler") }

// takeOff removes the address by hand, where it is.
func takeOff(_ *arena, n *fleet.Node) error {
	err := n.Host.DelAddr(netip.PrefixFrom(stage.VIP, 32))
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil // another node has it
	}
	return err
}

// operate types a command. With another node in trouble it may be refused, which is no fault.
func operate(args ...string) func(*arena, *fleet.Node) error {
	return func(a *arena, n *fleet.Node) error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if _, err := n.Skein(ctx, args...); err != nil {
			a.say("on %s: skein %s: %v", n.Name, strings.Join(args, " "), err)
		}
		return nil
	}
}

// enable takes the node into service again, and does not rest until it is.
func enable(a *arena, n *fleet.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), bootPatience)
	defer cancel()
	var err error
	if stage.Until(ctx, func() bool { _, err = n.Skein(ctx, "node", "enable", n.Name); return err == nil }) != nil {
		return fmt.Errorf("enable %s: %w", n.Name, err)
	}
	return nil
}

// serverOf is the web server that bears what is meant for n: another one for each node, so that two faults at a time meet two servers.
func (a *arena) serverOf(n *fleet.Node) **lab.WebServer {
	return &a.Servers[slices.Index(a.fleet.Nodes(), n)]
}

func serverDies(a *arena, n *fleet.Node) error { return (*a.serverOf(n)).Close() }

func serverIsBack(a *arena, n *fleet.Node) (err error) {
	s := a.serverOf(n)
	*s, err = a.Host((*s).Name).ServeHTTP((*s).Name, stage.WebPort)
	return err
}

func serverIll(ill bool) func(*arena, *fleet.Node) error {
	return func(a *arena, n *fleet.Node) error {
		(*a.serverOf(n)).Ill.Store(ill)
		return nil
	}
}
