package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

var enterErr error

func TestMain(m *testing.M) {
	enterErr = Enter()
	os.Exit(m.Run())
}

// world returns a world with hosts named so. Tests that use it skip only where this user may not have namespaces at all.
func world(t *testing.T, names ...string) (*World, []*Host) {
	t.Helper()
	if enterErr != nil {
		t.Skipf("no lab on this machine: %v", enterErr)
	}
	w, err := New(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	var hosts []*Host
	for _, n := range names {
		h, err := w.AddHost(n)
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, h)
	}
	return w, hosts
}

// must ends the test unless all errors are nil.
func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// background runs f until the test ends, or until the function that it returns is called.
func background(t *testing.T, f func(ctx context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil {
			t.Errorf("in the background: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// within fails the test when f has not become true after ten seconds.
func within(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not after 10 s: %s", what)
		}
	}
}

// reaches reports whether a connection from one host to another comes about.
func reaches(from *Host, to netip.AddrPort) bool {
	c, err := from.connect(to, time.Now().Add(150*time.Millisecond))
	if err == nil {
		c.Close()
	}
	return err == nil
}

func TestHostsReachEachOtherAndTheirServers(t *testing.T) {
	_, h := world(t, "client", "web", "db")
	web, err := h[1].ServeHTTP("s1", 80)
	must(t, err)
	echo, err := h[2].ServeEcho(5432)
	must(t, err)
	client := http.Client{Transport: &http.Transport{DialContext: h[0].Dial, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	for path, want := range map[string]string{"/": "s1\n", "/bytes/5": "00000", "/wait/1ms": "s1\n", "/healthz": "ill: false\n"} {
		resp, err := client.Get("http://" + web.Addr.String() + path)
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		must(t, err)
		if string(body) != want || resp.Header.Get("Server-Name") != "s1" {
			t.Errorf("GET %s = %q from %q, want %q from s1", path, body, resp.Header.Get("Server-Name"), want)
		}
	}
	if n := web.Requests.Load(); n != 3 {
		t.Errorf("the web server counts %d requests, want 3 (health checks do not count)", n)
	}
	c, err := h[0].Dial(t.Context(), "tcp", echo.String())
	must(t, err)
	defer c.Close()
	fmt.Fprintln(c, "hello")
	if line, err := bufio.NewReader(c).ReadString('\n'); line != "hello\n" || err != nil {
		t.Errorf("the echo server says %q, %v", line, err)
	}
	if h[2].Addr != netip.MustParseAddr("198.18.0.3") || h[2].MAC.String() != "02:00:c6:12:00:03" {
		t.Errorf("the third host is %v, %v", h[2].Addr, h[2].MAC)
	}
	if _, err := h[0].Dial(t.Context(), "tcp", "localhost:80"); err == nil {
		t.Error("a name was dialled: it would be resolved outside the host")
	}
}

func TestAHostIsANamespaceOfItsOwn(t *testing.T) {
	_, h := world(t, "a", "b")
	must(t, h[0].Sysctl("net.ipv4.conf.eth0.arp_ignore", "1"))
	for i, want := range []string{"1", "0"} {
		var got []byte
		err := h[i].Run(func() (err error) {
			got, err = os.ReadFile("/proc/sys/net/ipv4/conf/eth0/arp_ignore")
			return err
		})
		if strings.TrimSpace(string(got)) != want || err != nil {
			t.Errorf("arp_ignore on %v is %q, %v; want %s", h[i], got, err, want)
		}
	}
	// Both can listen on the same port, and on lo.
	for _, host := range h {
		l, err := host.Listen("tcp", "127.0.0.1:80")
		must(t, err)
		c, err := host.Dial(t.Context(), "tcp", "127.0.0.1:80")
		must(t, err)
		c.Close()
		l.Close()
	}
	out, err := h[0].Output(t.Context(), "/bin/sh", "-c", "cat /proc/net/dev; exit 0")
	must(t, err)
	if !strings.Contains(out, "eth0:") || !strings.Contains(out, "lo:") {
		t.Errorf("a process on a sees these links, want lo and eth0:\n%s", out)
	}
	if _, err := h[0].Output(t.Context(), "/bin/sh", "-c", "echo no >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "no") {
		t.Errorf("a failing program's error is %v, want its status and what it wrote", err)
	}
	if err := h[0].Sysctl("net.ipv4.no_such_thing", "1"); err == nil {
		t.Error("an unknown sysctl was set")
	}
}

func TestNamesAreChecked(t *testing.T) {
	w, _ := world(t, "a")
	for _, name := range []string{"", "a", "thirteen-char"} {
		if _, err := w.AddHost(name); err == nil {
			t.Errorf("AddHost(%q) succeeded", name)
		}
	}
}
