package lab

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/fleet"
)

// nextVersion is what the binary that follows calls itself.
const nextVersion = "9.9.9-next"

// place puts a binary where the nodes' agents were started from, in one step as a package does.
func (s *stage) place(write func(path string) error) {
	s.t.Helper()
	tmp := s.fleet.Agent + ".new"
	s.must(write(tmp))
	s.must(os.Rename(tmp, s.fleet.Agent))
}

func copyOf(from string) func(string) error {
	return func(path string) error {
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		return os.WriteFile(path, b, 0o755)
	}
}

func script(text string) func(string) error {
	return func(path string) error { return os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755) }
}

// builds begins to build the binary of a version, and returns what waits for it.
func (s *stage) builds(path, version string) (wait func() error) {
	s.t.Helper()
	var out bytes.Buffer
	build := exec.CommandContext(s.ctx, "go", "build", "-o", path, "-ldflags", "-X main.release="+version, "../../cmd/skein")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stdout, build.Stderr = &out, &out
	s.must(build.Start())
	return func() error {
		if err := build.Wait(); err != nil {
			return fmt.Errorf("build version %s: %w\n%s", version, err, &out)
		}
		return nil
	}
}

// agentOf is a node's own account of its agent.
func (s *stage) agentOf(name string) *api.NodeReport {
	s.t.Helper()
	var r *api.NodeReport
	s.wait("a report of "+name, func(st *api.Status) bool {
		for _, n := range st.Nodes {
			if n.Name == name && n.Report != nil {
				r = n.Report
			}
		}
		return r != nil
	})
	return r
}

// TestUpgradeInPlaceLosesNothing replaces the binary under the agents while everything that a client can have open is open: by one that
// does not start, by one that fails when it has the log, and by a good one on all nodes, one after the other.
func TestUpgradeInPlaceLosesNothing(t *testing.T) {
	s := newWorld(t)
	s.fleet = &fleet.Fleet{World: s.world, Binary: *binary, Agent: filepath.Join(s.dir, "skein"), Dir: s.dir}
	s.place(copyOf(*binary))
	s.logsOnFailure()
	next := filepath.Join(s.dir, "next")
	built := s.builds(next, nextVersion)
	for _, name := range []string{"lb1", "lb2", "lb3"} {
		_, err := s.fleet.Add(name)
		s.must(err)
	}
	s.bootOn(webOf, echoOf)
	s.traffic()
	s.whole()
	report := newReport("upgrade")
	c := s.cargo()
	played := func(name string, what func(holder *fleet.Node)) {
		t.Run(name, func(t *testing.T) {
			s.t = t
			s.whole()
			holder, since := s.holding(), time.Now()
			what(holder)
			r := s.nobodyNoticed(name, since)
			if r.before = holder.Name; r.after != r.before {
				t.Errorf("the address went from %s to %s", r.before, r.after)
			}
			report.add(name, r)
			if r.outage.Failed > 0 {
				t.Logf("%v\n%s", r.outage.Errors, s.failures(since))
			}
			c.arrived(name)
			c.openIdle()
		})
		s.t = t
	}
	refused := func(n *fleet.Node, want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		defer cancel()
		out, err := n.Skein(ctx, "node", "upgrade", n.Name)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("upgrade: %v\n%s\nwant it to say %q", err, out, want)
		}
	}

	played("a binary that does not start", func(holder *fleet.Node) {
		before := s.agentOf(holder.Name)
		s.place(script("echo broken >&2; exit 7"))
		refused(holder, "exit status 7")
		if after := s.agentOf(holder.Name); after.PID != before.PID {
			t.Errorf("process %d serves, it was %d", after.PID, before.PID)
		}
	})
	played("a binary that fails when it has taken over the log", func(holder *fleet.Node) {
		before := s.agentOf(holder.Name)
		s.place(script(fmt.Sprintf("ulimit -n 16; exec %s \"$@\"", *binary))) // too few descriptors for all that it is handed
		refused(holder, "went on without losing anything")
		after := s.agentOf(holder.Name)
		if after.PID == before.PID || after.Program.Failed == nil {
			t.Errorf("process %d serves, it was %d; failed: %+v", after.PID, before.PID, after.Program.Failed)
		}
	})
	s.must(built())
	played("one node after the other", func(*fleet.Node) {
		s.place(copyOf(next))
		s.wait("the nodes to see the new binary", func(st *api.Status) bool {
			seen := 0
			for _, n := range st.Nodes {
				if n.Report != nil && n.Report.Program.Differs && n.Report.Program.Version == nextVersion {
					seen++
				}
			}
			return seen == 3
		})
		t.Log(strings.TrimSpace(s.skein(s.fleet.Nodes()[0], "cluster", "upgrade", "--yes")))
		for _, n := range s.fleet.Nodes() {
			if r := s.agentOf(n.Name); r.Version != nextVersion || r.Program.Differs {
				t.Errorf("%s runs %s, of %+v", n.Name, r.Version, r.Program)
			}
		}
	})
	report.write(t)
}

// logFrom returns what reads a node's log from here on.
func (s *stage) logFrom(n *fleet.Node) func() string {
	s.t.Helper()
	before, err := os.Stat(n.LogPath())
	s.must(err)
	return func() string {
		b, err := os.ReadFile(n.LogPath())
		s.must(err)
		return string(b[before.Size():])
	}
}

// begun begins an upgrade of a node, and returns the process that is to follow while it hands over: stopped, so that it has not taken over. It
// calls stops in that moment, before that one goes on.
func (s *stage) begun(n *fleet.Node, stops func(next int)) (next int) {
	s.t.Helper()
	since := s.logFrom(n)
	s.background("the upgrade", func(ctx context.Context) error {
		_, _ = n.Skein(ctx, "node", "upgrade", n.Name) // the process that takes over stops at once, so that it may not be seen
		return nil
	})
	s.until("the next process to be ready", func() bool {
		_, line, found := strings.Cut(since(), "the new agent is ready")
		if _, pid, ok := strings.Cut(line, "pid="); found && ok && strings.Contains(line, "\n") {
			_, err := fmt.Sscan(pid, &next)
			s.must(err)
		}
		return next != 0
	})
	s.must(unix.Kill(next, unix.SIGSTOP))
	s.until("the node to hand over", func() bool { return strings.Contains(since(), "handing over to the new agent") })
	if log := since(); strings.Contains(log, "the new agent serves") {
		s.t.Fatalf("it took over before it was stopped:\n%s", log)
	}
	stops(next)
	s.must(unix.Kill(next, unix.SIGCONT))
	return next
}

// TestAStopDuringAnUpgradeGivesEverythingAway stops a node while one of its processes takes over from another: by a signal to both, as a
// service manager sends it to all of a unit, and by one to the process that was started. The address moves as in any planned stop, nobody
// notices, and neither process is left. A node that stops already is not upgraded, and says so.
func TestAStopDuringAnUpgradeGivesEverythingAway(t *testing.T) {
	s := newStage(t)
	stopped := func(name string, what func(holder *fleet.Node)) {
		t.Run(name, func(t *testing.T) {
			s.t = t
			s.whole()
			holder, since := s.holding(), time.Now()
			log := s.logFrom(holder)
			what(holder)
			s.ended(holder)
			if r := s.nobodyNoticed(name, since); r.after == holder.Name {
				t.Errorf("the address is still at %s", r.after)
			}
			if why := holder.Name + " stops"; !strings.Contains(log(), why) {
				t.Errorf("the address was not given away by the node: %q is not in its log", why)
			}
			s.restart(holder)
		})
		s.t = t
	}
	for _, c := range []struct {
		name string
		both bool
	}{{"both processes are told", true}, {"the former process is told", false}} {
		stopped(c.name, func(holder *fleet.Node) {
			next := s.begun(holder, func(next int) {
				s.must(unix.Kill(holder.Agent().Pid, unix.SIGTERM))
				if c.both {
					s.must(unix.Kill(next, unix.SIGTERM))
				}
			})
			s.ended(holder)
			if err := unix.Kill(next, 0); err != unix.ESRCH {
				s.t.Errorf("the process that took over is still there when the former one has ended: %v", err)
			}
		})
	}
	stopped("an upgrade after that", func(holder *fleet.Node) {
		st := &lab.Stream{Target: netip.AddrPortFrom(vip, tcpPort), Every: 20 * time.Millisecond} // it lasts for the whole time to drain
		s.background("a stream", func(ctx context.Context) error { return st.Run(ctx, s.client) })
		s.until("the stream to flow", func() bool { return st.Report().Echoed > 0 })
		log := s.logFrom(holder)
		s.must(unix.Kill(holder.Agent().Pid, unix.SIGTERM))
		s.until("the node to leave", func() bool { return strings.Contains(log(), "node leaves") })
		out, err := holder.Skein(s.ctx, "node", "upgrade", holder.Name)
		if err == nil || !strings.Contains(err.Error(), "this node is stopping") {
			s.t.Errorf("upgrade: %v\n%s\nwant it to say that the node is stopping", err, out)
		}
	})
}
