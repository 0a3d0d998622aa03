// Command vagrant runs every failure scenario on the lab of virtual machines and prints the table of outages.
//
// The machines are up (vagrant up); it finds them by `vagrant ssh-config`. What a client sees is measured by test/vagrant/probe in
// the client's machine. It checks safety: never two holders, and service back after each scenario. Timing is printed and not judged:
// machines in software emulation are slow.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

func main() {
	only := flag.String("run", "", "scenarios to run, by name, separated by commas; empty: all")
	results := flag.String("results", "", "folder to write the table and the raw figures to; empty: nowhere")
	list := flag.Bool("list", false, "list the scenarios and end")
	flag.Parse()
	if *list {
		for _, s := range scenarios {
			fmt.Printf("%-16s %s\n", s.name, s.what)
		}
		return
	}
	if err := run(*only, *results); err != nil {
		fmt.Fprintln(os.Stderr, "vagrant:", err)
		os.Exit(1)
	}
}

// row is what came of one scenario.
type row struct {
	Scenario string `json:"scenario"`
	What     string `json:"what"`
	Before   string `json:"holder_before"`
	After    string `json:"holder_after"`
	Seen     report `json:"seen"`
	Problem  string `json:"problem,omitempty"`
	ActedMs  int64  `json:"acted_ms"` // what happens had happened, since the probe's beginning
	At       string `json:"at"`
	Version  string `json:"version"`
	Kernel   string `json:"kernel"`
	Emulated bool   `json:"emulated"`
}

// report is the part of probe's that the table shows.
type report struct {
	Requests   int            `json:"requests"`
	Failed     int            `json:"failed"`
	Errors     map[string]int `json:"errors,omitempty"`
	OutageMs   float64        `json:"outage_ms"`
	Over       bool           `json:"over"`
	Samples    int            `json:"samples"`
	TwoHolders int            `json:"two_holder_samples"`
	TwoMs      float64        `json:"two_holder_ms"`
	Holders    []string       `json:"holders"`
	Streams    int            `json:"streams"`
	Cut        int            `json:"streams_cut"`
	Silent     int            `json:"streams_silent"`
	CutBy      map[string]int `json:"streams_cut_by,omitempty"`
	LengthMs   float64        `json:"length_ms"`
}

func run(only, results string) error {
	l, err := open()
	if err != nil {
		return err
	}
	defer l.close()
	var rows []row
	var bad []string
	at := labNet
	for _, s := range scenarios {
		if only != "" && !slices.Contains(strings.Split(only, ","), s.name) {
			continue
		}
		if s.where == nil {
			s.where = labNet
		}
		if s.where != at {
			fmt.Printf("%-16s the address goes to %s ...\n", "", s.where.dev)
			err := errors.Join(at.leave(l), s.where.enter(l))
			if at = s.where; err != nil {
				fmt.Printf("%-16s FAILED: %v\n", "", err)
				bad = append(bad, s.name)
				break
			}
		}
		fmt.Printf("%-16s %s ...\n", s.name, s.what)
		r := l.play(s)
		rows = append(rows, r)
		if r.Problem != "" {
			bad = append(bad, s.name)
			fmt.Printf("%-16s FAILED: %s\n", "", r.Problem)
		}
		if results != "" { // at once: who interrupts this keeps what has been played
			if err := keep(results, rows); err != nil {
				return errors.Join(err, at.leave(l))
			}
		}
	}
	left := at.leave(l)
	fmt.Print("\n", tabulate(rows))
	if len(bad) > 0 {
		return errors.Join(fmt.Errorf("%d of %d scenarios failed: %s", len(bad), len(rows), strings.Join(bad, ", ")), left)
	}
	return left
}

// keep writes the rows to a folder, in place of what it has of the same scenarios.
func keep(folder string, rows []row) error {
	var kept struct {
		Scenarios []row `json:"scenarios"`
	}
	file := filepath.Join(folder, "scenarios.json")
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &kept)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	was := kept.Scenarios
	kept.Scenarios = nil
	for _, s := range scenarios {
		for _, list := range [][]row{rows, was} {
			if i := slices.IndexFunc(list, func(r row) bool { return r.Scenario == s.name }); i >= 0 {
				kept.Scenarios = append(kept.Scenarios, list[i])
				break
			}
		}
	}
	if b, err = json.MarshalIndent(kept, "", "  "); err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(file, append(b, '\n'), 0o644),
		os.WriteFile(filepath.Join(folder, "scenarios.txt"), []byte(tabulate(kept.Scenarios)), 0o644))
}

func tabulate(rows []row) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SCENARIO\tOUTAGE ms\tFAILED\tLONG LOST\tTWO HOLDERS\tHOLDER")
	for _, r := range rows {
		outage := fmt.Sprintf("%.0f", r.Seen.OutageMs)
		if r.Problem != "" {
			outage += " !"
		}
		fmt.Fprintf(w, "%s\t%s\t%d of %d\t%d of %d\t%d of %d\t%s -> %s\n", r.Scenario, outage, r.Seen.Failed, r.Seen.Requests, r.Seen.Cut+r.Seen.Silent, r.Seen.Streams,
			r.Seen.TwoHolders, r.Seen.Samples, r.Before, r.After)
	}
	w.Flush()
	return b.String()
}

// world is the machines.
type world struct {
	dir     string // of the ssh configuration
	net     string // the first three bytes of the lab's network
	version string
	kernel  string

	emulated bool
	base     string // the configuration without what a segment adds
}

var (
	nodes    = []string{"lb1", "lb2", "lb3"}
	machines = append([]string{"client"}, nodes...) // those that a scenario logs in to
)

// open finds the machines and logs in to them: on a slow one that takes ten seconds, which belong to no scenario.
func open() (*world, error) {
	dir, err := os.MkdirTemp("", "skein-vagrant-")
	if err != nil {
		return nil, err
	}
	l := &world{dir: dir, net: "192.168.56", emulated: os.Getenv("SKEIN_EMULATED") != ""}
	if n := os.Getenv("SKEIN_NET"); n != "" {
		l.net = n
	}
	out, err := exec.Command("vagrant", "ssh-config").Output()
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("vagrant ssh-config: %w; are the machines up?", err)
	}
	extra := "\nHost *\n  ControlMaster auto\n  ControlPersist 1h\n  ControlPath " + dir + "/%n\n  ServerAliveInterval 5\n"
	err = os.WriteFile(l.config(), append(out, extra...), 0o600)
	if err == nil {
		err = l.login()
	}
	if err == nil {
		l.version, err = l.ssh("lb1", "skein version | head -1")
	}
	if err == nil {
		l.kernel, err = l.ssh("lb1", "uname -r")
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// login logs in to all machines at once.
func (l *world) login() error {
	errs := make([]error, len(machines))
	var wg sync.WaitGroup
	for i, m := range machines {
		wg.Go(func() { _, errs[i] = l.ssh(m, "true") })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// close logs out of the machines.
func (l *world) close() {
	for _, m := range machines {
		_ = exec.Command("ssh", "-F", l.config(), "-O", "exit", m).Run() // it may have been logged out of, by what happened to it
	}
	os.RemoveAll(l.dir)
}

func (l *world) config() string { return filepath.Join(l.dir, "ssh_config") }

// ssh runs a command on a machine and returns what it prints.
func (l *world) ssh(host, command string) (string, error) {
	out, err := exec.Command("ssh", "-F", l.config(), "-o", "LogLevel=ERROR", host, command).Output()
	if err != nil {
		said := ""
		if e := (*exec.ExitError)(nil); errors.As(err, &e) {
			said = ": " + strings.TrimSpace(string(e.Stderr))
		}
		return strings.TrimSpace(string(out)), fmt.Errorf("on %s: %s: %w%s", host, command, err, said)
	}
	return strings.TrimSpace(string(out)), nil
}

// holder returns the node that the cluster says holds a VIP, when every node is there and well, and has handed over what it had to: an agent
// that still serves an address which has moved away is not upgraded.
func (l *world) holder(vip string, patience time.Duration) (string, error) {
	var last error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Second) {
		for _, n := range nodes {
			out, err := l.ssh(n, "sudo skein vip list -o json")
			if err != nil {
				last = err
				continue
			}
			var vips struct {
				VIPs []struct {
					Name   string `json:"name"`
					Holder string `json:"holder"`

					Draining []json.RawMessage `json:"draining"`
				} `json:"vips"`
			}
			if err := json.Unmarshal([]byte(out), &vips); err != nil {
				return "", fmt.Errorf("skein vip list on %s: %w", n, err)
			}
			holder, draining := "", 0
			for _, v := range vips.VIPs {
				draining += len(v.Draining)
				if v.Name == vip {
					holder = v.Holder
				}
			}
			if holder == "" || draining > 0 {
				last = fmt.Errorf("no holder yet, or one before it still serves: %s", out)
				continue
			}
			if _, err := l.ssh(n, "sudo skein status >/dev/null"); err != nil {
				last = err
				continue
			}
			return holder, nil
		}
	}
	return "", fmt.Errorf("the cluster is not well after %v: %w", patience, last)
}

// What the client sees is watched for lead before something happens, and for trail after it, or after its undoing.
const (
	lead      = 3 * time.Second
	trail     = 9 * time.Second
	probeMost = 15 * time.Minute // a probe that was forgotten ends by itself
)

// play runs one scenario: act while probe watches, undo after the scenario's pause, then wait until all is well.
func (l *world) play(s scenario) (r row) {
	r = row{Scenario: s.name, What: s.what, At: time.Now().UTC().Format(time.RFC3339), Version: l.version, Kernel: l.kernel, Emulated: l.emulated}
	fail := func(err error) row { r.Problem = err.Error(); return r }
	holder, err := l.holder(s.where.vip, 5*time.Minute)
	if err != nil {
		return fail(err)
	}
	r.Before = holder
	if s.before != nil {
		if err := s.before(l, holder); err != nil {
			return fail(err)
		}
	}
	if err := l.probe(s, &r); err != nil {
		return fail(err)
	}
	if r.After, err = l.holder(s.where.vip, 5*time.Minute); err != nil {
		return fail(err)
	}
	// The long way, for machines that take their time.
	if _, err := l.ssh("client", fmt.Sprintf("curl -fsS -o /dev/null --max-time 5 --retry 20 --retry-all-errors http://%s/", s.where.addr(l))); err != nil {
		return fail(err)
	}
	r.Problem = r.judge(s)
	return r
}

// probe acts and undoes while the client's probe watches. The probe lasts until it is told to end: on a slow machine an act alone can take
// longer than any time that would be given for it, and what happens after the probe's end nobody sees.
func (l *world) probe(s scenario, r *row) error {
	pace := "-every 20ms -deadline 1s"
	if l.emulated { // 50 connections a second are more than such a machine can do
		pace = "-every 200ms -deadline 3s"
	}
	probe := exec.Command("ssh", "-F", l.config(), "-o", "LogLevel=ERROR", "client",
		fmt.Sprintf("sudo probe -vip %s -if %s -from %s.192 -for %v -until-eof -streams 10 %s", s.where.addr(l), s.where.client, s.where.net(l), probeMost, pace))
	var out strings.Builder
	probe.Stdout = &out
	end, err := probe.StdinPipe()
	if err != nil {
		return err
	}
	said, err := probe.StderrPipe()
	if err != nil {
		return err
	}
	if err := probe.Start(); err != nil {
		return err
	}
	// It takes seconds to begin on a slow machine, and what happened before it saw nothing of.
	lines := bufio.NewScanner(said)
	for lines.Scan() && lines.Text() != "probe runs" {
		fmt.Fprintln(&out, lines.Text())
	}
	begun := time.Now()
	go io.Copy(io.Discard, said)
	time.Sleep(lead)
	acted := s.act(l, r.Before)
	r.ActedMs = time.Since(begun).Milliseconds()
	time.Sleep(s.pause)
	if s.undo != nil {
		acted = errors.Join(acted, s.undo(l, r.Before))
	}
	time.Sleep(trail)
	if err := errors.Join(acted, end.Close(), probe.Wait()); err != nil {
		return fmt.Errorf("%w\n%s", err, out.String())
	}
	if err := json.Unmarshal([]byte(out.String()), &r.Seen); err != nil {
		return fmt.Errorf("%w: %s", err, out.String())
	}
	return nil
}

// judge returns what is wrong with what was seen; empty: nothing.
func (r *row) judge(s scenario) string {
	macs := map[string]bool{}
	for _, h := range r.Seen.Holders {
		macs[h] = true
	}
	switch {
	case r.Seen.TwoHolders > 0 && r.Seen.TwoMs >= s.twoHoldersMs:
		return fmt.Sprintf("two holders in %d samples, for %.0f ms", r.Seen.TwoHolders, r.Seen.TwoMs)
	case !r.Seen.Over && !s.long && !r.Emulated:
		return "the service was not back at the end"
	case s.keeps && r.Seen.Failed+r.Seen.Cut+r.Seen.Silent > 0:
		return fmt.Sprintf("%d requests failed, %d long connections were cut and %d fell silent, and nothing should", r.Seen.Failed, r.Seen.Cut, r.Seen.Silent)
	case s.stays && r.After != r.Before:
		return fmt.Sprintf("the address moved from %s to %s", r.Before, r.After)
	case s.stays && len(macs) > 1:
		return fmt.Sprintf("the address went from %s and came back", r.Before)
	case r.ActedMs > 0 && float64(r.ActedMs) > r.Seen.LengthMs:
		return fmt.Sprintf("it happened after %d ms, and the probe looked for %.0f", r.ActedMs, r.Seen.LengthMs)
	case !s.stays && !s.long && len(macs) < 2:
		return fmt.Sprintf("the address had to leave %s (it is on %s now), and the client saw %d MACs answer: it did not, or the probe missed it, or two nodes have one MAC",
			r.Before, r.After, len(macs))
	}
	return ""
}
