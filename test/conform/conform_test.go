package conform

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/skeinlb/skein/internal/node" // what the binary is made of: when it changes, a cached result is none
)

// build makes the binary under test.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "skein")
	cmd := exec.Command("go", "build", "-o", binary, "../../cmd/skein")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build skein: %v\n%s", err, out)
	}
	return binary
}

func TestSkeinPassesTheBattery(t *testing.T) { passes(t, Skein(build(t))) }

// What TLS carries is treated like what comes without.
func TestSkeinPassesTheBatteryThroughTLS(t *testing.T) { passes(t, SkeinTLS(build(t))) }

func passes(t *testing.T, p Proxy) {
	r, err := Start(p)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		r.Stop()
		if t.Failed() {
			t.Logf("skein printed:\n%s", r.Log())
		}
	}()
	for _, c := range Cases() {
		if got := r.Run(c); !got.Passed() {
			t.Errorf("%s, %s: %s (%s)\n    %s", c.Class, c.Section, c.Name, c.Level, strings.Join(got.Wrong, "\n    "))
		}
	}
}

func TestCasesAreWhole(t *testing.T) {
	names := map[string]bool{}
	for _, c := range Cases() {
		id := c.Class + ": " + c.Name
		switch {
		case names[id]:
			t.Errorf("%s stands there twice", id)
		case c.Name == "" || c.Section == "" || c.Send == "" || c.Want == "":
			t.Errorf("%s lacks a section, bytes or a verdict", id)
		case c.Level != Must && c.Level != Legal && c.Level != Should:
			t.Errorf("%s is of level %q", id, c.Level)
		}
		names[id] = true
	}
}

// relay is the worst of proxies: it passes every byte on, both ways, and understands none of them.
func relay(t *testing.T, to string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			copyAll := func(dst, src net.Conn) {
				io.Copy(dst, src)
				dst.(*net.TCPConn).CloseWrite()
			}
			all.Go(func() { copyAll(s, c); s.Close() })
			all.Go(func() { copyAll(c, s); c.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

// The battery must see through a relay. Only a strict server stands between its client and harm, so whatever a case forbids to
// reach a server does, and must be called so; legal traffic that needs no work passes.
func TestTheBatterySeesThroughARelay(t *testing.T) {
	o, err := NewOrigin()
	if err != nil {
		t.Fatal(err)
	}
	j := Judge{Addr: relay(t, o.listener.Addr().String()), Origin: o, Patience: 50 * time.Millisecond}
	t.Cleanup(o.Close) // before the relay, whose connections end with it
	verdicts := map[string]bool{}
	for _, c := range Cases() {
		if c.Class == "hop-by-hop" || c.Class == "Via and Max-Forwards" || c.Class == "chunks" || c.Class == "request line" {
			verdicts[c.Name] = j.Run(c).Passed()
		}
	}
	for name, want := range map[string]bool{
		"a plain GET is passed on":                           true,
		"a request that arrives byte by byte is one request": true,
		"several chunks":                                     true,
		"a chunk of 100 kB":                                  true,
		"the version is case-sensitive":                      false, // a strict server refuses; it should never have seen it
		"NUL in a target is refused":                         false,
		"a field named by Connection is removed":             false,
		"a request gets a Via":                               false,
		"Max-Forwards of OPTIONS is counted down":            false,
		"at 0, OPTIONS goes no further":                      false,
		"an extension is ignored":                            false,
		"a size line does not end with LF alone":             false,
		"data does not end with LF alone":                    false,
	} {
		if got, known := verdicts[name]; !known || got != want {
			t.Errorf("%q passes: %v (known: %v), want %v", name, got, known, want)
		}
	}
}
