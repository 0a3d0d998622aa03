package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/skeinlb/skein/internal/node" // what the binary is made of: when it changes, a cached result is none
	"github.com/skeinlb/skein/test/bench/load"
)

// rounds makes samples of which HAProxy's are 10 us of CPU, a rate of 1000 and a p99 of 1 ms, and skein's these shares of it.
func rounds(cpu, rate, p99 float64) (all []sample) {
	for round := range 3 {
		slow := 1 + float64(round) // the machine is slower and slower, for everybody
		for _, proxy := range []string{"haproxy", "skein", "nginx"} {
			c, r, p := cpu, rate, p99
			if proxy != "skein" {
				c, r, p = 1, 1, 1
			}
			n := uint64(math.Round(100_000 * r))
			all = append(all,
				sample{Proxy: proxy, Round: round + 1, Kind: "closed", Result: load.Result{Requests: n, Seconds: slow,
					CPU: map[string]float64{"proxy": float64(n) * 1e-5 * c * slow}}},
				sample{Proxy: proxy, Round: round + 1, Kind: "fixed", Result: load.Result{Requests: 1, Seconds: 1, P99us: 1000 * p * slow}})
		}
	}
	return all
}

// A goal is met when the median of the ratios is, to two digits; the machine may become slower meanwhile, for ratios are taken
// within rounds.
func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		name           string
		cpu, rate, p99 float64
		goal           goal
		missed         string
	}{
		{"all met", .65, 1.2, .9, goal{.70, 1.1, 1}, ""},
		{"to two digits", .704, 1.096, 1.004, goal{.70, 1.1, 1}, ""},
		{"CPU", .706, 1.2, .9, goal{.70, 1.1, 1}, "CPU"},
		{"rate", .95, 1.09, .9, goal{.95, 1.1, 1}, "rate"},
		{"rate of the load", .65, 1.09, .9, goal{.70, 1.1, 1}, "rate (the load's: skein used 0.71 of its processor, HAProxy 1.00)"},
		{"p99", .65, 1.2, 1.01, goal{.70, 1.1, 1}, "p99"},
		{"everything", 2, .5, 3, goal{.70, 1.1, 1}, "CPU rate p99"},
		{"CPU alone counts", .7, .1, 9, goal{CPU: .75}, ""},
	} {
		r := judge("row", 64, c.goal, rounds(c.cpu, c.rate, c.p99))
		if got := strings.Join(r.Missed, " "); got != c.missed || r.Met != (c.missed == "") {
			t.Errorf("%s: missed %q, want %q", c.name, got, c.missed)
		}
		s := r.Proxies["skein"]
		if s.CPURatio.Max-s.CPURatio.Min > 1e-9 || math.Abs(s.CPURatio.Median-c.cpu) > 1e-4 {
			t.Errorf("%s: a CPU ratio of %+v, want %v in all rounds", c.name, s.CPURatio, c.cpu)
		}
	}
	for _, c := range []struct {
		p99  []float64 // skein's, in milliseconds
		want string
		near bool
	}{
		{[]float64{.9, 1.1, 1.2}, "p99" + inSpread, true},
		{[]float64{1.1, 1.1, 1.2}, "p99", false},
		{[]float64{.1, .9, 4}, "", false},
	} {
		all := rounds(.5, 2, 1)
		for i := range all {
			if all[i].Proxy == "skein" && all[i].Kind == "fixed" {
				all[i].P99us *= c.p99[all[i].Round-1]
			}
		}
		r := judge("row", 64, goal{.7, 1.1, 1}, all)
		if got := strings.Join(r.Missed, " "); got != c.want || r.near() != c.near {
			t.Errorf("p99 of %v: missed %q, near %v, want %q, %v", c.p99, got, r.near(), c.want, c.near)
		}
	}
	bad := rounds(.5, 2, .5)
	for i := range bad {
		if bad[i].Proxy == "skein" {
			bad[i].Errors = 1
		}
	}
	if r := judge("row", 64, goal{.7, 1.1, 1}, bad); r.Met || !slices.Equal(r.Missed, []string{"errors"}) {
		t.Errorf("with errors: %v %v", r.Met, r.Missed)
	}
}

func TestQuantiles(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		q    float64
		want float64
	}{{nil, .5, 0}, {[]float64{3}, .5, 3}, {[]float64{3, 1}, .5, 2}, {[]float64{5, 1, 3}, .5, 3}, {[]float64{1, 2, 3, 4, 5}, .25, 2}, {[]float64{2, 1}, 1, 2}} {
		if got := quantile(c.of, c.q); got != c.want {
			t.Errorf("quantile %v of %v is %v, want %v", c.q, c.of, got, c.want)
		}
	}
}

// Every row has a goal from the table but the one that is reported only, and asks for what the origin knows.
func TestRowsAreWhole(t *testing.T) {
	all := rows()
	titles := map[string]bool{}
	for _, r := range all {
		if titles[r.title()] {
			t.Errorf("%s stands there twice", r.title())
		}
		titles[r.title()] = true
		if (r.goal == goal{}) && r.name != "TLS handshakes, RSA" {
			t.Errorf("%s has no goal", r.title())
		}
		for _, q := range r.requests {
			if !strings.HasSuffix(q, "\r\n\r\n") || strings.Count(q, "\r\n\r\n") != 1 || !regexp.MustCompile(`^(GET|POST) \S*/b\d+(\?close)? HTTP/1.1\r\nHost: \S+\r\n`).MatchString(q) {
				t.Errorf("%s asks %q", r.title(), q)
			}
		}
	}
}

// Pictures are well-formed and show every row and curve.
func TestPictures(t *testing.T) {
	f := figures{Machine: &machine{}, Rows: []result{
		judge("small & quick", 64, goal{.70, 1.1, 1}, rounds(.65, 1.2, .9)), judge("slow", 8, goal{.70, 1.1, 1}, rounds(9, .1, 9)),
		judge("reported", 1, goal{}, rounds(1, 1, 1)), judge("CPU only", 1, goal{CPU: 1}, rounds(1, 1, 1)[:6])}}
	c := curves{Machine: &machine{}}
	for _, g := range growths {
		line := curve{Name: g.name, Axis: g.axis}
		for _, x := range g.at {
			us := map[string]spread{}
			for _, p := range []string{"haproxy", "skein", "nginx"} {
				us[p] = spreadOf([]float64{10 + float64(x)/100})
			}
			line.Points = append(line.Points, point{x, us})
		}
		c.Curves = append(c.Curves, line)
	}
	for name, picture := range map[string]string{"ratios": drawRatios(f), "curves": drawCurves(c)} {
		var shown strings.Builder
		d := xml.NewDecoder(strings.NewReader(picture))
		for {
			tok, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if text, ok := tok.(xml.CharData); ok {
				shown.Write(text)
			}
		}
		if strings.Contains(picture, "NaN") || strings.Contains(picture, "Inf") {
			t.Errorf("%s shows what is no number", name)
		}
		want := []string{"small & quick : 64", "slow : 8", "9.00 \u2192", "HAProxy"}
		if name == "curves" {
			want = []string{"Connections", "Routes by host", "Routes by path", "Servers", "10,000"}
		}
		for _, w := range want {
			if !strings.Contains(shown.String(), w) {
				t.Errorf("%s does not show %q", name, w)
			}
		}
	}
}

// build makes the binary that is measured and the one that measures.
func build(t *testing.T) (skein, bench string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"cmd/skein", "test/bench"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, filepath.Base(name)), "../../"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	return filepath.Join(dir, "skein"), filepath.Join(dir, "bench")
}

// lacking is what of a peer is not on this machine.
func lacking(peer string) string {
	for _, path := range map[string][]string{
		"haproxy": {"/usr/sbin/haproxy"},
		"nginx":   {"/usr/sbin/nginx", "/usr/lib/nginx/modules/ngx_stream_module.so"},
	}[peer] {
		if _, err := os.Stat(path); err != nil {
			return path
		}
	}
	return ""
}

// The three take their configurations, in every form that the benchmark gives them; skein's is in canonical form.
func TestConfigurationsAreTaken(t *testing.T) {
	skein, _ := build(t)
	certs, err := certificates()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]map[string]string{"rows": files()}
	for _, g := range growths {
		if g.files != nil {
			all[g.name] = g.files(3)
		}
	}
	for what, files := range all {
		for _, p := range peers(skein) {
			cmd, err := p.prepare(filepath.Join(t.TempDir(), p.name), files[p.name], certs, 1)
			if err != nil {
				t.Fatal(err)
			}
			switch p.name {
			case "skein":
				cmd.Args = []string{skein, "check", "skein.hcl"}
			case "haproxy":
				cmd.Args = append(cmd.Args, "-c")
			case "nginx":
				cmd.Args = append(cmd.Args, "-t")
			}
			if lack := lacking(p.name); lack != "" {
				t.Logf("%s is not installed (scripts/packages installs it); its configurations are not checked", lack)
				continue
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s, %s: %v\n%s", what, p.name, err, out)
			}
		}
	}
	ours, err := filepath.Glob("peers/*.hcl")
	if err != nil || len(ours) == 0 {
		t.Fatalf("no configuration of skein: %v", err)
	}
	for _, file := range ours {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(skein, "fmt", "-")
		cmd.Stdin = bytes.NewReader(text)
		if out, err := cmd.Output(); err != nil || string(out) != string(text) {
			t.Errorf("%s is not in canonical form: %v\n%s", file, err, out)
		}
	}
}

// All of it once: a row of each kind, in short rounds, whatever the machine does meanwhile. Nothing is written.
func TestTheBenchmarkRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("three proxies under load: not with -short")
	}
	if lack := lacking("haproxy") + lacking("nginx"); lack != "" {
		t.Skipf("%s is not installed; scripts/packages installs it", lack)
	}
	skein, bench := build(t)
	out := t.TempDir()
	cmd := exec.CommandContext(t.Context(), bench, "-rows", "^(browser|connection: close|both|TLS.*resumed)", "-skein", skein, "-rounds", "1",
		"-length", "100ms", "-busy", "-out", out)
	cmd.WaitDelay = 10 * time.Second
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	t.Logf("%s", text)
	if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
		t.Errorf("a run of some rows wrote %v (%v)", left, err)
	}
}
