package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/api/apitest"
	"github.com/skeinlb/skein/api/client"
	"github.com/skeinlb/skein/internal/golden"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC // transcripts show times
	os.Exit(m.Run())
}

// TestTranscripts runs testdata/*.txt. A line that starts with
//
//	#  is prose,
//	@  changes the world (see world),
//	$  is a command line, typed on the first node; what it prints and its exit code follow between two ----.
//
// Everything behind the command line is real (API server, replicated state, parser) but the engine, the guard and the network, which
// package apitest makes up, and time, which is virtual.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d transcripts: %v", len(files), err)
	}
	for _, file := range files {
		path, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			enterFiles(t)
			synctest.Test(t, func(t *testing.T) { runTranscript(t, path) })
		})
	}
}

// enterFiles goes to a copy of testdata/files, where commands may write.
func enterFiles(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/files")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
}

func runTranscript(t *testing.T, path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	w := &world{t: t}
	block := false // inside the expected output
	for line := range strings.Lines(string(b)) {
		switch {
		case line == "----\n":
			block = !block
			continue
		case block:
			continue
		}
		got.WriteString(line)
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "", "#":
		case "@":
			w.change(rest)
		case "$":
			fmt.Fprintf(&got, "----\n%s----\n", w.run(rest))
		default:
			t.Fatalf("%s: what is %q?", path, line)
		}
	}
	if block {
		t.Fatalf("%s: the last ---- is missing", path)
	}
	golden.File(t, path, got.String())
}

// world is a cluster and a terminal.
type world struct {
	t       *testing.T
	cluster *apitest.Cluster
	first   string
	answer  string        // typed at the next question; "": nobody can be asked
	after   time.Duration // the question: when it is answered
	typed   string        // standard input of the next command
	width   int           // of the terminal; 0: output goes to a pipe
	color   bool
	watched bool // standard error is a terminal, too: what is waited for is shown there
	edits   map[string][]func(*api.NodeReport)

	away, back time.Time // between them the first node's agent does not answer
}

// change is a line that starts with @.
func (w *world) change(line string) {
	f := strings.Fields(line)
	rest := func(i int) string { return strings.Join(f[i:], " ") }
	switch f[0] {
	case "nodes": // NAME...
		w.cluster, w.first, w.edits = apitest.New(w.t, f[1:]...), f[1], map[string][]func(*api.NodeReport){}
		synctest.Wait()
	case "young": // NAME...: they have not heard yet what their cluster is
		w.cluster, w.first, w.edits = apitest.Young(w.t, f[1:]...), f[1], map[string][]func(*api.NodeReport){}
		synctest.Wait()
	case "config": // FILE: applied, and its VIPs placed on the first node
		if out := w.run("skein apply -o name " + f[1]); !strings.HasSuffix(out, "exit 0\n") {
			w.t.Fatalf("apply: %s", out)
		}
		for _, v := range w.cluster.Nodes[w.first].View().Config.VIPs {
			w.cluster.Place(w.t, v.Name, w.first)
		}
		synctest.Wait()
	case "wait": // DURATION
		d, err := time.ParseDuration(f[1])
		if err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(d)
	case "dead": // NODE: nobody reaches it
		w.cluster.Nodes[f[1]].Set(func(n *apitest.World) { n.Dead = true })
	case "refuse": // NODE WHY: its engine takes no new configuration
		w.cluster.Nodes[f[1]].Set(func(n *apitest.World) { n.Refuse = rest(2) })
	case "slow": // NODE DURATION
		d, err := time.ParseDuration(f[2])
		if err != nil {
			w.t.Fatal(err)
		}
		w.cluster.Nodes[f[1]].Set(func(n *apitest.World) { n.Slow = d })
	case "drains": // NODE CONNECTIONS DURATION: what a VIP that moves away from it leaves behind, and for how long from now
		left, _ := strconv.Atoi(f[2])
		d, err := time.ParseDuration(f[3])
		if err != nil {
			w.t.Fatal(err)
		}
		until := time.Now().Add(d)
		w.cluster.Nodes[f[1]].Set(func(n *apitest.World) { n.Draining, n.Until = left, until })
	case "away": // DURATION DURATION: after the first, and for the second, the agent of the first node does not answer
		after, err := time.ParseDuration(f[1])
		if err != nil {
			w.t.Fatal(err)
		}
		d, err := time.ParseDuration(f[2])
		if err != nil {
			w.t.Fatal(err)
		}
		w.away, w.back = time.Now().Add(after), time.Now().Add(after+d)
	case "disk": // NODE VERSION [LEVEL]: of the binary at its agent's path
		level := 0
		if len(f) > 3 {
			level, _ = strconv.Atoi(f[3])
		}
		w.cluster.Nodes[f[1]].Set(func(n *apitest.World) { n.OnDisk, n.LevelOnDisk = f[2], level })
	case "outdated": // NODE WHY: it has met what its version does not know
		w.cluster.Nodes[f[1]].Set(func(n *apitest.World) { n.Outdated = rest(2) })
		w.edit(f[1], func(r *api.NodeReport) { r.Guard.Fit, r.Guard.FitReason = false, rest(2) })
	case "unready": // NODE WHY: what would follow its agent is not ready to
		w.cluster.Nodes[f[1]].Set(func(n *apitest.World) { n.Unready = errors.New(rest(2)) })
	case "breaks": // NODE WHY: what would follow it fails later
		w.cluster.Nodes[f[1]].Set(func(n *apitest.World) { n.Breaks = rest(2) })
	case "unfit": // NODE WHY
		w.edit(f[1], func(r *api.NodeReport) { r.Guard.Fit, r.Guard.FitReason = false, rest(2) })
	case "noquorum":
		w.cluster.Fail(api.ErrNoLeader)
		for name := range w.cluster.Nodes {
			w.edit(name, func(r *api.NodeReport) { r.Raft.Leader, r.Raft.Quorum, r.VIPs = "", false, nil })
		}
	case "ejects", "ramps": // NODE BACKEND/SERVER DURATION, or percent
		backend, server, _ := strings.Cut(f[2], "/")
		d, _ := time.ParseDuration(f[3])
		percent, _ := strconv.Atoi(f[3])
		until := time.Now().Add(d)
		w.edit(f[1], func(r *api.NodeReport) {
			for i := range r.Servers {
				if s := &r.Servers[i]; s.Backend == backend && s.Server == server {
					s.RampPercent = percent
					if d > 0 {
						s.EjectedUntil = until
					}
				}
			}
		})
	case "vrrp": // NODE ROUTER_ID STATE [ACTIVE]: its standing in the group of the VIPs that it holds
		id, _ := strconv.Atoi(f[2])
		w.edit(f[1], func(r *api.NodeReport) {
			for i := range r.VIPs {
				r.VIPs[i].VRRP = &api.VRRP{RouterID: uint8(id), State: f[3], Active: strings.Join(f[4:], " ")}
			}
		})
	case "panics": // NODE BACKEND
		w.edit(f[1], func(r *api.NodeReport) {
			r.Backends = append(r.Backends, api.BackendReport{Backend: f[2], Panic: true})
		})
	case "down": // NODE BACKEND/SERVER WHY
		since := time.Now()
		w.edit(f[1], func(r *api.NodeReport) {
			for i := range r.Servers {
				if s := &r.Servers[i]; s.Backend+"/"+s.Server == f[2] {
					s.Up, s.Why, s.Since = false, rest(3), since
				}
			}
		})
	case "alarm": // NODE WHAT -> HINT
		what, hint, _ := strings.Cut(rest(2), " -> ")
		w.edit(f[1], func(r *api.NodeReport) {
			r.Alarms = append(r.Alarms, api.Alarm{Severity: api.Critical, What: what, Hint: hint})
		})
	case "answer": // WORD [DURATION]: at once, or after so long
		w.answer = f[1]
		if len(f) > 2 {
			w.after, _ = time.ParseDuration(f[2])
		}
	case "type": // FILE: into standard input of the next command
		b, err := os.ReadFile(f[1])
		if err != nil {
			w.t.Fatal(err)
		}
		w.typed = string(b)
	case "watched": // the next command: its standard error is a terminal
		w.watched = true
	case "unable": // NODE VIP WHY
		w.edit(f[1], func(r *api.NodeReport) {
			r.Guard.Unable = append(r.Guard.Unable, api.UnableVIP{Name: f[2], Why: rest(3)})
		})
	case "late": // NODE PROFILE WHY: its guard's profile is not the fastest
		w.edit(f[1], func(r *api.NodeReport) { r.Guard.Profile, r.Guard.ProfileWhy = f[2], rest(3) })
	case "short": // NODE VIP...: it sees too few servers behind them
		w.edit(f[1], func(r *api.NodeReport) { r.Short = f[2:] })
	case "flapping": // NODE...: the first node, which leads, says so
		w.edit(w.first, func(r *api.NodeReport) { r.Flapping = f[1:] })
	case "returns": // VIP NODE DURATION: the first node, which leads, will move it back
		d, err := time.ParseDuration(f[3])
		if err != nil {
			w.t.Fatal(err)
		}
		at := time.Now().Add(d)
		w.edit(w.first, func(r *api.NodeReport) {
			r.Returns = append(r.Returns, api.Return{VIP: f[1], Node: f[2], InMs: time.Until(at).Milliseconds()})
		})
	case "mended": // NODE: what was said of it is no longer so
		w.edits[f[1]] = nil
		w.edit(f[1], func(*api.NodeReport) {})
	case "terminal": // WIDTH [color]
		w.width, _ = strconv.Atoi(f[1])
		w.color = len(f) > 2
	default:
		w.t.Fatalf("unknown change %q", line)
	}
}

func (w *world) edit(node string, f func(*api.NodeReport)) {
	w.edits[node] = append(w.edits[node], f)
	edits := w.edits[node]
	w.cluster.Nodes[node].Set(func(n *apitest.World) {
		n.Edit = func(r *api.NodeReport) {
			for _, f := range edits {
				f(r)
			}
		}
	})
}

// run types a command line and returns what it printed: standard output, then standard error, each line marked, then the exit code.
func (w *world) run(line string) string {
	argv, err := words(line)
	if err != nil || argv[0] != "skein" {
		w.t.Fatalf("%q: %v", line, err)
	}
	var out, errOut bytes.Buffer
	c := w.cli(&out, &errOut)
	code := c.run(w.t.Context(), argv[1:])
	var b strings.Builder
	b.Write(out.Bytes())
	if out.Len() > 0 && !bytes.HasSuffix(out.Bytes(), []byte("\n")) {
		b.WriteString("(no newline)\n")
	}
	for l := range strings.Lines(strings.ReplaceAll(errOut.String(), "\r", "\n")) { // a line that is drawn anew is a new one here
		b.WriteString("2> " + strings.TrimSuffix(l, "\n") + "\n")
	}
	fmt.Fprintf(&b, "exit %d\n", code)
	w.answer, w.typed, w.after, w.watched = "", "", 0, false
	return strings.ReplaceAll(b.String(), "\x1b", "<esc>")
}

func (w *world) cli(out, errOut io.Writer) *cli {
	c := &cli{
		in: &typist{strings.NewReader(cmp.Or(w.typed, w.answer+"\n")), w.after}, inTTY: w.answer != "",
		out: out, errOut: errOut, outTTY: w.width > 0, errTTY: w.watched, outWidth: func() int { return w.width },
		env: func(name string) string {
			if name == "NO_COLOR" && !w.color {
				return "1"
			}
			return ""
		},
		now: time.Now,
	}
	if w.cluster != nil {
		c.cl = client.NewDial("/run/"+w.first+".sock", func(ctx context.Context) (net.Conn, error) {
			now := time.Now()
			if now.Before(w.back) && !now.Before(w.away) {
				return nil, syscall.ECONNREFUSED
			}
			conn, err := w.cluster.Nodes[w.first].DialAPI(ctx)
			if err == nil && now.Before(w.away) {
				time.AfterFunc(w.away.Sub(now), func() { conn.Close() })
			}
			return conn, err
		})
	}
	return c
}

// typist types after a while.
type typist struct {
	io.Reader
	after time.Duration
}

func (t *typist) Read(p []byte) (int, error) {
	time.Sleep(t.after)
	t.after = 0
	return t.Reader.Read(p)
}

// words splits a command line at spaces outside of double quotes.
func words(line string) ([]string, error) {
	var out []string
	quoted, open, cur := false, false, ""
	for _, r := range line + " " {
		switch {
		case r == '"':
			quoted, open = !quoted, true
		case r == ' ' && !quoted:
			if open || cur != "" {
				out = append(out, cur)
			}
			cur, open = "", false
		default:
			cur += string(r)
		}
	}
	if quoted || len(out) == 0 {
		return nil, fmt.Errorf("no command line")
	}
	return out, nil
}
