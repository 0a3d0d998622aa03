package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/skeinlb/skein/test/bench/load"
)

// quietShare is how much of one processor others may use for figures to be published.
const quietShare = 0.05

// machine is where, when and of what figures were made.
type machine struct {
	Time     string   `json:"time"`
	Commit   string   `json:"commit"`
	Kernel   string   `json:"kernel"`
	CPU      string   `json:"cpu"`
	CPUs     int      `json:"cpus"`
	Control  string   `json:"congestion_control"`
	Versions []string `json:"versions"`
	Rounds   int      `json:"rounds"`
	Length   string   `json:"length"`
	Load     []string `json:"load_average"`  // before and after
	Others   float64  `json:"others_before"` // processors that others used just before
	During   float64  `json:"others_during"` // the median over the rounds
	Busy     bool     `json:"not_quiet,omitempty"`
	Took     string   `json:"took,omitempty"`

	begun time.Time
}

// newMachine looks at the machine, and refuses it if others are at work.
func newMachine(o options) (*machine, error) {
	if runtime.NumCPU() < 2 {
		return nil, errors.New("two processors are needed: one for the proxy, one for server and load")
	}
	if err := furnish(); err != nil {
		return nil, err
	}
	m := &machine{
		Time: time.Now().UTC().Format(time.RFC3339), Commit: output("git", "describe", "--always", "--dirty", "--abbrev=12"), Kernel: "Linux " + text("/proc/sys/kernel/osrelease"),
		CPU: model(), CPUs: runtime.NumCPU(), Control: congestion, Rounds: o.rounds, Length: o.length.String(), Load: []string{text("/proc/loadavg")}, begun: time.Now(),
		Versions: []string{output(o.skein, "version"), output("/usr/sbin/haproxy", "-v"), output("/usr/sbin/nginx", "-v"), runtime.Version()},
	}
	var w watch
	if err := w.begin(); err != nil {
		return nil, err
	}
	time.Sleep(1500 * time.Millisecond)
	var err error
	if m.Others, err = w.others(0); err != nil {
		return nil, err
	}
	if m.Others > quietShare {
		m.Busy = true
		what := fmt.Sprintf("others use %.0f %% of a processor (load average %s); figures would be wrong", m.Others*100, m.Load[0])
		if !o.busy {
			return nil, errors.New(what + "; wait until the machine is quiet, or say -busy to measure all the same")
		}
		fmt.Println("bench: " + what)
	}
	return m, nil
}

// end notes how the machine was meanwhile.
func (m *machine) end(others []float64) {
	m.Load = append(m.Load[:1], text("/proc/loadavg"))
	m.Took = time.Since(m.begun).Round(time.Second).String()
	m.During = median(others)
	m.Busy = m.Busy || m.During > quietShare
}

func (m *machine) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Made at %s from commit %s on %s, %d CPUs (%s): %s. %d rounds of %s per proxy and row, in %s. ", m.Time, m.Commit, m.Kernel, m.CPUs, m.CPU,
		strings.Join(m.Versions, "; "), m.Rounds, m.Length, m.Took)
	if m.Control != "" {
		fmt.Fprintf(&b, "Congestion control: %s. ", m.Control)
	}
	fmt.Fprintf(&b, "Load average before and after: %s. Other programs used %.0f %% of a processor before and %.0f %% during the rounds (median).",
		strings.Join(m.Load, "; "), m.Others*100, m.During*100)
	if m.Busy {
		b.WriteString(" **The machine was not quiet: do not rely on these figures.**")
	}
	return b.String()
}

// watch tells what of the machine's time others use.
type watch struct {
	at   time.Time
	busy float64
	own  float64
}

func (w *watch) begin() (err error) {
	w.at = time.Now()
	if w.busy, err = busy(); err != nil {
		return err
	}
	w.own, err = load.CPUTime(0)
	return err
}

// others returns how many processors were busy since begin with what is neither this process nor the CPU seconds in ours.
func (w *watch) others(ours float64) (float64, error) {
	now, err := busy()
	if err != nil {
		return 0, err
	}
	own, err := load.CPUTime(0)
	if err != nil {
		return 0, err
	}
	return max(0, (now-w.busy-(own-w.own)-ours)/time.Since(w.at).Seconds()), nil
}

// busy returns the seconds that all processors have worked, with what a hypervisor took away.
func busy() (float64, error) {
	line, _, _ := strings.Cut(text("/proc/stat"), "\n")
	f := strings.Fields(line)
	if len(f) < 9 {
		return 0, fmt.Errorf("/proc/stat begins %q", line)
	}
	var ticks float64
	for i, s := range f[1:9] {
		if i == 3 || i == 4 { // idle, waiting for a disk
			continue
		}
		n, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		ticks += n
	}
	return ticks / 100, nil
}

func text(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}

// output is the first line that a command prints, or nothing.
func output(name string, args ...string) string {
	b, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}

func model() string {
	for line := range strings.Lines(text("/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
