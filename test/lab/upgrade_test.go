package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/api"
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
