// Command bench measures skein beside Debian's HAProxy and nginx on this machine, in one run, with the same load and the same
// server, and prints the CPU time per request and the rate as ratios to HAProxy.
//
// The proxy under test has CPU 0 for itself; the server (nginx, one worker) and the load (wrk, one thread) share CPU 1. On
// loopback the rate is soon bound by the generator, so CPU time of the whole proxy process per completed request is the honest
// figure. Rounds go A B C A B C; medians count. It is not a test: nothing here passes or fails.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// load is one way of asking.
type load struct {
	Name  string
	Conns int
	Path  string
	Port  int  // of the proxy
	Close bool // connection: close
}

var loads = []load{
	{Name: "http 128 B keep-alive", Conns: 64, Path: "/b128", Port: portHTTP},
	{Name: "http 128 B keep-alive", Conns: 256, Path: "/b128", Port: portHTTP},
	{Name: "http 1 KB keep-alive", Conns: 64, Path: "/b1k", Port: portHTTP},
	{Name: "http 128 B keep-alive", Conns: 8, Path: "/b128", Port: portHTTP},
	{Name: "http connection: close", Conns: 64, Path: "/b128", Port: portHTTP, Close: true},
	{Name: "http 64 KB", Conns: 64, Path: "/b64k", Port: portHTTP},
	{Name: "http 1 MB", Conns: 16, Path: "/b1m", Port: portHTTP},
	{Name: "tcp small messages", Conns: 64, Path: "/b128", Port: portTCP},
	{Name: "tcp 1 MB", Conns: 16, Path: "/b1m", Port: portTCP},
}

// Sample is one round of one proxy under one load.
type Sample struct {
	Load      string  `json:"load"`
	Conns     int     `json:"connections"`
	Proxy     string  `json:"proxy"`
	Round     int     `json:"round"`
	Requests  uint64  `json:"requests"`
	Seconds   float64 `json:"seconds"`
	CPU       float64 `json:"cpu_seconds"`
	P50us     float64 `json:"p50_us"`
	P99us     float64 `json:"p99_us"`
	SockErrs  uint64  `json:"socket_errors"`
	BadStatus uint64  `json:"bad_status"`
}

func (s Sample) usPerRequest() float64 { return s.CPU * 1e6 / float64(s.Requests) }
func (s Sample) rate() float64         { return float64(s.Requests) / s.Seconds }

func main() {
	rounds := flag.Int("rounds", 5, "rounds per proxy and load")
	seconds := flag.Int("seconds", 4, "length of a round")
	only := flag.String("only", "", "run only loads whose name contains this")
	bin := flag.String("skein", "bin/skein", "the binary to measure")
	out := flag.String("out", "test/bench/results", "directory for raw rounds and the table; empty: do not write")
	flag.Parse()
	if err := run(*rounds, *seconds, *only, *bin, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(rounds, seconds int, only, bin, out string) error {
	if runtime.NumCPU() < 2 {
		return fmt.Errorf("two CPUs are needed: one for the proxy, one for server and load")
	}
	dir, err := os.MkdirTemp("", "skein-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var procs procs
	defer procs.stop()
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM)
	go func() { <-sig; procs.stop(); os.RemoveAll(dir); os.Exit(130) }()

	if err := startServer(&procs, dir); err != nil {
		return err
	}
	proxies, err := proxies(dir, bin)
	if err != nil {
		return err
	}
	var picked []load
	for _, l := range loads {
		if strings.Contains(l.Name, only) {
			picked = append(picked, l)
		}
	}
	total := time.Duration(len(picked)*len(proxies)*rounds) * (time.Duration(seconds)*time.Second + 1200*time.Millisecond)
	fmt.Printf("%d loads x %d proxies x %d rounds of %d s: about %v\n", len(picked), len(proxies), rounds, seconds, total.Round(time.Second))
	var samples []Sample
	for _, l := range picked {
		for round := 1; round <= rounds; round++ {
			for _, p := range proxies {
				s, err := measure(p, l, round, seconds)
				if errors.Is(err, errNoRow) {
					continue
				}
				if err != nil {
					return fmt.Errorf("%s under %q: %w", p.name, l.Name, err)
				}
				samples = append(samples, s)
				fmt.Printf("\r%-24s %4d  round %d/%d  %-8s %7.2f us/req %8.0f req/s   ", l.Name, l.Conns, round, rounds, p.name, s.usPerRequest(), s.rate())
			}
		}
		fmt.Printf("\r%s\r", strings.Repeat(" ", 90))
		fmt.Print(row(l, samples))
	}
	table := report(picked, samples)
	fmt.Println("\n" + table)
	if out == "" {
		return nil
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(samples, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "raw.json"), append(raw, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "README.md"), []byte(method(rounds, seconds)+table), 0o644)
}

// median of f over the samples of one proxy under one load.
func median(samples []Sample, l load, proxy string, f func(Sample) float64) float64 {
	var v []float64
	for _, s := range samples {
		if s.Load == l.Name && s.Conns == l.Conns && s.Proxy == proxy {
			v = append(v, f(s))
		}
	}
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

func row(l load, samples []Sample) string {
	cpu := func(p string) float64 { return median(samples, l, p, Sample.usPerRequest) }
	rate := func(p string) float64 { return median(samples, l, p, Sample.rate) }
	p99 := func(p string) float64 { return median(samples, l, p, func(s Sample) float64 { return s.P99us }) }
	return fmt.Sprintf("| %-22s | %4d | %7.2f | **%.2f** [%.2f] | %.2f [%.2f] | %5.0f / %5.0f / %5.0f |\n", l.Name, l.Conns, cpu("haproxy"),
		cpu("skein")/cpu("haproxy"), rate("skein")/rate("haproxy"), cpu("nginx")/cpu("haproxy"), rate("nginx")/rate("haproxy"),
		p99("skein"), p99("haproxy"), p99("nginx"))
}

func report(picked []load, samples []Sample) string {
	var b strings.Builder
	b.WriteString("| load | conns | HAProxy us/req | skein | nginx | p99 us skein / HAProxy / nginx |\n|---|---|---|---|---|---|\n")
	for _, l := range picked {
		b.WriteString(row(l, samples))
	}
	return b.String()
}

func method(rounds, seconds int) string {
	return fmt.Sprintf(`# skein beside HAProxy and nginx

CPU time of the whole proxy process per completed request as a ratio to HAProxy, lower is better; in brackets the ratio of the rates,
higher is better. Made by `+"`make bench`"+` on %s, %d CPUs, %s, %s, %s; %d rounds of %d s per cell in turn (A B C A B C), medians. Every
proxy is pinned to CPU 0 with one worker; nginx as the server and wrk (one thread) share CPU 1. Loopback. About a quarter of every
proxy's CPU is the peers' receive work, which dilutes differences for all alike. The raw rounds are in raw.json beside this file.

HAProxy: nbthread 1, http-reuse always, forwardfor, defer-accept, splice-auto, no logs. nginx: one worker, keepalive 256 to the server,
X-Forwarded-For, no logs. skein: a cookie-less least configuration of one frontend and one backend, with its counters, timers and
X-Forwarded-For, as always.

`, kernel(), runtime.NumCPU(), firstLine("/usr/sbin/haproxy", "-v"), firstLine("/usr/sbin/nginx", "-v"), runtime.Version(), rounds, seconds)
}
