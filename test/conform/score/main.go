// Command score runs the conformance battery against skein and Debian's HAProxy and nginx, and prints the three scores side by side.
//
// With -out it writes them as a table, with what each of the three gets wrong, and as JSON. Then it sends skein torn requests.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinlb/skein/test/conform"
)

func main() {
	bin := flag.String("skein", "bin/skein", "the binary to judge")
	out := flag.String("out", "test/conform/results", "directory for the table and the raw results; empty: do not write")
	only := flag.String("only", "", "run only cases whose class or name contains this")
	count := flag.Uint64("mutations", 20_000, "torn requests to send to skein behind the battery; see conform.Generate")
	seed := flag.Uint64("seed", uint64(time.Now().Unix()), "of the torn requests; another every time, to find what the last did not")
	verbose := flag.Bool("v", false, "print what is wrong with every case that fails")
	flag.Parse()
	err := run(*bin, *out, *only, *verbose)
	if err == nil && *count > 0 && *only == "" {
		err = tear(*bin, *seed, *count)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "score:", err)
		os.Exit(1)
	}
}

// maxShown bounds the scripts that are printed.
const maxShown = 10

// tear sends requests that nobody has thought of as a case, and fails when an invariant is broken.
func tear(bin string, seed, count uint64) error {
	abs, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	fmt.Printf("\nsending %d torn requests of seed %d\n", count, seed)
	r, err := conform.Start(conform.Skein(abs))
	if err != nil {
		return err
	}
	defer r.Stop()
	broken := 0
	var done atomic.Uint64
	defer progress(&done, count, "torn requests")()
	for n := range count {
		done.Store(n)
		s := conform.Generate(seed, n)
		wrong := r.Survive(s)
		if len(wrong) == 0 {
			continue
		}
		if broken++; broken <= maxShown {
			fmt.Printf("script %d, %v\n    %s\n    again: go test ./test/conform -run Torn -seed %d -from %d -mutations 1\n", n, s, strings.Join(wrong, "\n    "), seed, n)
		}
	}
	if broken > 0 {
		return fmt.Errorf("%d of %d torn requests of seed %d break an invariant", broken, count, seed)
	}
	fmt.Println("none breaks an invariant")
	return nil
}

// progress says on standard error, every ten seconds, how many of all are done, until the function that it returns is called.
func progress(done *atomic.Uint64, all uint64, what string) (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(ended)
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				fmt.Fprintf(os.Stderr, "score: %d of %d %s\n", done.Load(), all, what)
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-ended }
}

// judged is a proxy with what came of the cases.
type judged struct {
	Proxy   string           `json:"proxy"`
	Version string           `json:"version"`
	Results []conform.Result `json:"results"`
}

func run(bin, out, only string, verbose bool) error {
	abs, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	var cases []conform.Case
	for _, c := range conform.Cases() {
		if strings.Contains(c.Class+": "+c.Name, only) {
			cases = append(cases, c)
		}
	}
	var proxies []conform.Proxy
	for _, p := range []conform.Proxy{conform.Skein(abs), conform.SkeinTLS(abs), conform.HAProxy(), conform.Nginx()} {
		if _, err := os.Stat(p.Binary); err != nil {
			if strings.HasPrefix(p.Name, "skein") {
				return fmt.Errorf("%w; build it first: make build", err)
			}
			fmt.Fprintf(os.Stderr, "score: %s is not installed; left out\n", p.Name)
			continue
		}
		proxies = append(proxies, p)
	}
	all := make([]judged, len(proxies))
	errs := make([]error, len(proxies))
	var wait sync.WaitGroup
	var done atomic.Uint64
	stop := progress(&done, uint64(len(cases)*len(proxies)), "cases")
	for i, p := range proxies { // at once: most of the time goes by in waiting for what does not come
		wait.Go(func() {
			all[i] = judged{Proxy: p.Name, Version: version(p)}
			all[i].Results, errs[i] = judge(p, cases, verbose, &done)
		})
	}
	wait.Wait()
	stop()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	text := table(all)
	fmt.Print(text)
	if out == "" {
		return nil
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "raw.json"), append(raw, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "README.md"), []byte(intro(all)+text+failures(all)), 0o644)
}

func judge(p conform.Proxy, cases []conform.Case, verbose bool, done *atomic.Uint64) ([]conform.Result, error) {
	r, err := conform.Start(p)
	if err != nil {
		return nil, err
	}
	defer r.Stop()
	var results []conform.Result
	for _, c := range cases {
		got := r.Run(c)
		results = append(results, got)
		done.Add(1)
		if verbose && !got.Passed() {
			fmt.Printf("%s %s, %s: %s (%s)\n    %s\n", p.Name, c.Class, c.Section, c.Name, c.Level, strings.Join(got.Wrong, "\n    "))
		}
	}
	return results, nil
}

func version(p conform.Proxy) string {
	arg := "-v"
	if strings.HasPrefix(p.Name, "skein") {
		arg = "version"
	}
	out, err := exec.Command(p.Binary, arg).CombinedOutput()
	if err != nil {
		return p.Name
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// table has a row for every class and one for every level.
func table(all []judged) string {
	var b strings.Builder
	b.WriteString("| |")
	for _, j := range all {
		fmt.Fprintf(&b, " %s |", j.Proxy)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(all)) + "\n")
	row := func(name string, keep func(conform.Result) bool) {
		fmt.Fprintf(&b, "| %s |", name)
		for _, j := range all {
			fmt.Fprintf(&b, " %v |", conform.Tally(j.Results, keep))
		}
		b.WriteByte('\n')
	}
	for _, l := range []struct {
		level conform.Level
		name  string
	}{
		{conform.Must, "**RFC MUST and safety from smuggling**"},
		{conform.Legal, "**legal traffic must work**"},
		{conform.Should, "**RFC SHOULD and hardening**"},
	} {
		row(l.name, func(r conform.Result) bool { return r.Level == l.level })
	}
	for _, class := range classes(all) {
		row(class, func(r conform.Result) bool { return r.Class == class })
	}
	return b.String()
}

func classes(all []judged) []string {
	var names []string
	for _, r := range all[0].Results {
		if !slices.Contains(names, r.Class) {
			names = append(names, r.Class)
		}
	}
	return names
}

// failures lists what each proxy gets wrong, in short; raw.json has all of it.
func failures(all []judged) string {
	var b strings.Builder
	for _, j := range all {
		fmt.Fprintf(&b, "\n## What %s does otherwise\n\n", j.Proxy)
		none := true
		for _, r := range j.Results {
			if r.Passed() {
				continue
			}
			none = false
			what := []rune(strings.ReplaceAll(r.Wrong[0], "|", `\|`))
			if len(what) > 120 {
				what = append(what[:120], '.', '.', '.')
			}
			fmt.Fprintf(&b, "- %s, %s, %s: %s (%s)\n", r.Level, r.Class, r.Section, r.Name, string(what))
		}
		if none {
			b.WriteString("Nothing.\n")
		}
	}
	return b.String()
}

func intro(all []judged) string {
	var versions []string
	for _, j := range all {
		if !slices.Contains(versions, j.Version) {
			versions = append(versions, j.Version)
		}
	}
	return fmt.Sprintf(`# The conformance battery beside HAProxy and nginx

%d cases of HTTP/1.1 (RFC 9110 and 9112, and the public attack literature), sent on raw sockets to each proxy with a strict recording origin
behind it, and to skein once more through TLS. A case passes when the client gets what the case wants, only canonical HTTP/1.1 reaches the origin, the origin sees no request
that was not sent, and two canaries afterwards get their own answers. Made by `+"`go run ./test/conform/score`"+` with
%s.
Every proxy has one thread and the configuration in test/conform/proxy.go. raw.json has every case and what came of it.

A case under MUST that reads "refused or 200" leaves a choice that the RFC leaves; it fails by one of the invariants. Some of what HAProxy
and nginx lack here can be configured (Via, for one) or is deliberate leniency. The scores say what they do as they come.

`, len(all[0].Results), strings.Join(versions, ";\n"))
}
