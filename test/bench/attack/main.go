// Command attack holds connections to a running skein as slow attackers do, and tells how long it lets them.
//
// It starts the binary that it is given with a configuration of its own and a server beside it, all on loopback: nothing else is
// touched. While a thousand attackers creep, honest clients (canaries) go on asking; both must come out well. The one rule: what is
// measured is what a client sees on its own socket, never what skein says of itself.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// The bounds that must hold.
const (
	cutWithin = 15 * time.Second
	canaryP99 = 100 * time.Millisecond
)

func main() {
	binary := flag.String("skein", "bin/skein", "the binary")
	connections := flag.Int("connections", 1000, "attackers at once")
	slowReaders := flag.Int("readers", 1000, "attackers at once that read slowly; each holds up to a megabyte of the kernel's memory")
	out := flag.String("o", "", "write the results as JSON into this file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := run(ctx, *binary, *connections, *slowReaders)
	if err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		os.Exit(1)
	}
	if *out != "" {
		b, _ := json.MarshalIndent(r, "", "  ")
		if err := os.WriteFile(*out, append(b, '\n'), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "attack:", err)
			os.Exit(1)
		}
	}
	if !r.print(os.Stdout) {
		os.Exit(1)
	}
}

// Results is what a run found.
type Results struct {
	Kernel  string    `json:"kernel"`
	CPUs    int       `json:"cpus"`
	At      time.Time `json:"at"`
	Attacks []Attack  `json:"attacks"`
}

// Attack is one kind of attack. Times are in seconds, of the attackers from their first byte, of the canaries from their request.
type Attack struct {
	Name        string  `json:"name"`
	Connections int     `json:"connections"`
	Cut         int     `json:"cut"`
	CutMedian   float64 `json:"cut_median_s"`
	CutMax      float64 `json:"cut_max_s"`

	Canaries  int     `json:"canaries"`
	Answered  int     `json:"canaries_answered"`
	CanaryP50 float64 `json:"canary_p50_s"`
	CanaryP99 float64 `json:"canary_p99_s"`
	CanaryMax float64 `json:"canary_max_s"`
}

func (a *Attack) good() bool {
	return a.Cut == a.Connections && a.CutMax <= cutWithin.Seconds() && a.Answered == a.Canaries && a.CanaryP99 <= canaryP99.Seconds()
}

func (r *Results) print(w *os.File) bool {
	fmt.Fprintf(w, "%-12s %11s %5s %10s %8s %9s %9s %8s %8s %8s\n", "attack", "connections", "cut", "median s", "max s", "canaries",
		"answered", "p50 ms", "p99 ms", "max ms")
	good := true
	for _, a := range r.Attacks {
		verdict := ""
		if !a.good() {
			good, verdict = false, "  MISSED"
		}
		fmt.Fprintf(w, "%-12s %11d %5d %10.1f %8.1f %9d %9d %8.2f %8.2f %8.2f%s\n", a.Name, a.Connections, a.Cut, a.CutMedian, a.CutMax,
			a.Canaries, a.Answered, 1000*a.CanaryP50, 1000*a.CanaryP99, 1000*a.CanaryMax, verdict)
	}
	fmt.Fprintf(w, "bounds: all cut within %v, every canary answered, p99 at most %v\n", cutWithin, canaryP99)
	return good
}

func run(ctx context.Context, binary string, connections, readers int) (*Results, error) {
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer origin.Close()
	server := &http.Server{Handler: http.HandlerFunc(serve)}
	go server.Serve(origin) // ends with its listener
	defer server.Close()

	addr, stop, err := startSkein(ctx, binary, origin.Addr().String())
	if err != nil {
		return nil, err
	}
	defer stop()

	var uts syscall.Utsname
	syscall.Uname(&uts)
	r := &Results{Kernel: text(uts.Release[:]), CPUs: runtime.NumCPU(), At: time.Now().UTC().Truncate(time.Second)}
	for _, k := range []struct {
		kind
		n int
	}{{slowHeader, connections}, {slowBody, connections}, {slowChunks, connections}, {slowRead, readers}} {
		if k.n == 0 {
			continue
		}
		a, err := attack(ctx, addr, k.kind, k.n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
		r.Attacks = append(r.Attacks, *a)
	}
	return r, nil
}

func text(chars []int8) string {
	var b []byte
	for _, c := range chars {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	return string(b)
}

// startSkein runs `skein run` with its default protection and waits until it answers.
func startSkein(ctx context.Context, binary, origin string) (addr string, stop func(), err error) {
	binary, err = filepath.Abs(binary)
	if err != nil {
		return "", nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	addr = l.Addr().String()
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	dir, err := os.MkdirTemp("", "skein-attack-")
	if err != nil {
		return "", nil, err
	}
	file := filepath.Join(dir, "attack.hcl")
	conf := fmt.Sprintf("frontend \"f\" {\n  bind    = [\"127.0.0.1\"]\n  http    = %d\n  backend = \"b\"\n}\n"+
		"backend \"b\" {\n  server \"s\" { address = %q }\n}\n", port, origin)
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, binary, "run", file)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		os.RemoveAll(dir)
		return "", nil, err
	}
	stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.RemoveAll(dir)
	}
	for range 200 {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return addr, stop, nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	stop()
	return "", nil, errors.New("skein does not listen after five seconds")
}

// quantile of sorted values.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func sorted(v []float64) []float64 {
	slices.Sort(v)
	return v
}
