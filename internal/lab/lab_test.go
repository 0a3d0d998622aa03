package lab

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

func TestCutsAreSeenAndHealed(t *testing.T) {
	w, h := world(t, "a", "b", "c")
	addrs := make([]netip.AddrPort, 3)
	for i := range h {
		var err error
		addrs[i], err = h[i].ServeEcho(7)
		must(t, err)
	}
	seen := func() string {
		var got [3][3]bool
		var wg sync.WaitGroup
		for i := range h {
			for j := range h {
				if i != j {
					wg.Go(func() { got[i][j] = reaches(h[i], addrs[j]) })
				}
			}
		}
		wg.Wait()
		var s []string
		for i := range h {
			for j := range h {
				if got[i][j] {
					s = append(s, h[i].Name+h[j].Name)
				}
			}
		}
		return strings.Join(s, " ")
	}
	const all = "ab ac ba bc ca cb"
	for _, c := range []struct {
		name string
		do   func() error
		want string
	}{
		{"nothing", func() error { return nil }, all},
		{"cut b", func() error { return w.Cut(h[1]) }, "ac ca"},
		{"heal", w.Heal, all},
		{"partition", func() error { return w.Partition(h[:1], h[1:]) }, "bc cb"},
		{"heal again", w.Heal, all},
		{"unplug c", func() error { return w.Unplug(h[2]) }, "ab ba"},
		{"unplug c twice", func() error { return w.Unplug(h[2]) }, "ab ba"},
		{"plug c", func() error { return w.Plug(h[2]) }, all},
	} {
		must(t, c.do())
		got := seen()
		// What was cut off may have to wait for its next ARP request.
		for deadline := time.Now().Add(5 * time.Second); got != c.want && c.want == all && time.Now().Before(deadline); {
			got = seen()
		}
		if got != c.want {
			t.Errorf("after %s: %s get through, want %s", c.name, got, c.want)
		}
	}
}

// What a sends is swallowed, what it hears is not: datagrams tell, for a connection needs both directions.
func TestOneWayCutSwallowsOneDirection(t *testing.T) {
	w, h := world(t, "a", "b")
	var conns []net.PacketConn
	for _, host := range h {
		c, err := host.ListenPacket("udp", netip.AddrPortFrom(host.Addr, 9).String())
		must(t, err)
		conns = append(conns, c)
	}
	send := func(from, to int) bool {
		addr := net.UDPAddrFromAddrPort(netip.AddrPortFrom(h[to].Addr, 9))
		_, err := conns[from].WriteTo([]byte("x"), addr)
		must(t, err)
		conns[to].SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, _, err = conns[to].ReadFrom(make([]byte, 8))
		return err == nil
	}
	if !send(0, 1) || !send(1, 0) {
		t.Fatal("datagrams do not get through at all")
	}
	must(t, w.CutOneWay(h[0], h[1]))
	if send(0, 1) {
		t.Error("a reaches b in spite of the cut")
	}
	if !send(1, 0) {
		t.Error("b does not reach a: the cut has two ways")
	}
	must(t, w.Heal())
	if !send(0, 1) {
		t.Error("a does not reach b after the heal")
	}
}

func TestClientSeesAnOutageWhenItsServerIsCutOff(t *testing.T) {
	w, h := world(t, "client", "web")
	web, err := h[1].ServeHTTP("s1", 80)
	must(t, err)
	load := &Load{Target: web.Addr, Every: 10 * time.Millisecond, Deadline: 60 * time.Millisecond}
	keep := &Load{Target: web.Addr, Every: 10 * time.Millisecond, Deadline: 60 * time.Millisecond, KeepAlive: true}
	for _, l := range []*Load{load, keep} {
		background(t, func(ctx context.Context) error { return l.Run(ctx, h[0]) })
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	start := time.Now()
	for _, l := range []*Load{load, keep} {
		// The machine may be busy: a missed deadline or two must not make this a test of its speed.
		if o, err := l.Record.Settled(ctx, start, 0); err != nil {
			t.Fatalf("before the cut: %+v, %v", o, err)
		}
	}
	at := time.Now()
	must(t, w.Cut(h[1]))
	within(t, "the clients see that the server is gone", func() bool {
		return load.Record.Outage(at).Failed > 5 && keep.Record.Outage(at).Failed > 1
	})
	must(t, w.Heal())
	for _, l := range []*Load{load, keep} {
		o, err := l.Record.Settled(ctx, at, 0)
		if err != nil || !o.Over() || o.Length() < 10*time.Millisecond || o.Errors["timeout"] == 0 {
			t.Errorf("keep-alive %v: outage of %v, %+v, %v; want time-outs, then its end", l.KeepAlive, o.Length(), o, err)
		}
	}
	if s := load.Record.Summary(start); s.From["s1"] == 0 || s.PerSec < 1 || s.P50 == 0 || s.Requests < s.Failed {
		t.Errorf("summary %+v", s)
	}
}

func TestStreamNotesWhenItStallsAndWhenItIsCut(t *testing.T) {
	w, h := world(t, "client", "db")
	addr, err := h[1].ServeEcho(5432)
	must(t, err)
	s := &Stream{Target: addr}
	background(t, func(ctx context.Context) error { return s.Run(ctx, h[0]) })
	within(t, "numbers come back", func() bool { return s.Report().Echoed > 5 })
	must(t, w.Cut(h[1]))
	within(t, "the stream stalls", func() bool { return s.Report().Longest > 300*time.Millisecond })
	must(t, w.Heal())
	n := s.Report().Echoed
	within(t, "it goes on after the heal", func() bool { return s.Report().Echoed > n+5 })
	if r := s.Report(); !r.Cut.IsZero() {
		t.Fatalf("a stall was taken for a cut: %+v", r)
	}
	h[1].mu.Lock()
	closers := h[1].closers
	h[1].mu.Unlock()
	for _, c := range closers {
		c.Close() // the server dies
	}
	within(t, "the stream is cut", func() bool { return !s.Report().Cut.IsZero() })
	if r := s.Report(); r.Why != "closed" && r.Why != "reset" {
		t.Errorf("it was cut by %q, want closed or reset", r.Why)
	}
}

// A short TCP session is good only when exactly what was sent came back and the other side ended after this one.
func TestEchoSessionNotesWhatGoesWrong(t *testing.T) {
	_, h := world(t, "client", "db")
	for i, tt := range []struct {
		name  string
		serve func(net.Conn)
		want  string
	}{
		{"echoes", func(c net.Conn) { io.Copy(c, c) }, ""},
		{"closes at once", func(net.Conn) {}, "closed|reset"},
		{"closes in the middle", func(c net.Conn) { io.CopyN(c, c, 5) }, "closed|reset"},
		{"says nothing", func(c net.Conn) { io.Copy(io.Discard, c) }, "timeout"},
		{"says something else", func(c net.Conn) { io.Copy(c, io.MultiReader(strings.NewReader("what"), c)) }, "nonsense"},
		{"says more", func(c net.Conn) { io.Copy(c, io.MultiReader(c, strings.NewReader("!"))) }, "nonsense"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := h[1].Listen("tcp", netip.AddrPortFrom(h[1].Addr, 7000+uint16(i)).String())
			must(t, err)
			background(t, func(ctx context.Context) error {
				defer context.AfterFunc(ctx, func() { l.Close() })()
				for {
					c, err := l.Accept()
					if err != nil {
						return nil // closed
					}
					tt.serve(c)
					c.Close()
				}
			})
			load := &Load{Target: netip.MustParseAddrPort(l.Addr().String()), Echo: true, Deadline: 10 * time.Second}
			if tt.want == "timeout" {
				load.Deadline = 50 * time.Millisecond
			}
			background(t, func(ctx context.Context) error { return load.Run(ctx, h[0]) })
			within(t, "a session is over", func() bool { return len(load.Record.Since(time.Time{})) > 0 })
			got := load.Record.Since(time.Time{})[0].Err
			if got != tt.want && (got == "" || !slices.Contains(strings.Split(tt.want, "|"), got)) {
				t.Errorf("the session ended with %q, want %q", got, tt.want)
			}
		})
	}
	if err := (&Load{Target: netip.AddrPortFrom(h[1].Addr, 7000), Echo: true, KeepAlive: true}).Run(t.Context(), h[0]); err == nil {
		t.Error("a load that is both kept alive and of echo sessions was begun")
	}
}

func TestWatchSeesAnAddressMoveAndTwoHolders(t *testing.T) {
	for _, vip := range []string{"198.18.0.100/32", "2001:2::100/128"} {
		t.Run(vip, func(t *testing.T) { watchMove(t, netip.MustParsePrefix(vip)) })
	}
}

func watchMove(t *testing.T, vip netip.Prefix) {
	w, h := world(t, "watcher", "lb1", "lb2")
	watch := &ARPWatch{Addr: vip.Addr()}
	background(t, func(ctx context.Context) error { return watch.Run(ctx, h[0]) })
	start := time.Now()

	must(t, h[1].AddAddr(vip))
	within(t, "lb1 answers", func() bool { return watch.Holder(w) == "lb1" })
	must(t, h[1].DelAddr(vip), h[2].AddAddr(vip))
	within(t, "lb2 answers", func() bool { return watch.Holder(w) == "lb2" })
	if n, d := watch.TwoHolders(start); n != 0 {
		t.Errorf("%d samples with two holders over %v while one moved the address properly", n, d)
	}
	both := time.Now()
	must(t, h[1].AddAddr(vip))
	within(t, "both answer", func() bool { n, d := watch.TwoHolders(both); return n > 3 && d > 0 })
	must(t, h[1].DelAddr(vip))
	alone := time.Now()
	within(t, "lb2 alone answers", func() bool {
		line := watch.Timeline(w, alone)
		return len(line) > 0 && strings.Join(line[len(line)-1].Holders, " ") == "lb2" && line[len(line)-1].Samples > 5
	})
	var order []string
	for _, r := range watch.Timeline(w, start) {
		if who := strings.Join(r.Holders, "+"); who == "lb1" || who == "lb2" {
			if len(order) == 0 || order[len(order)-1] != who {
				order = append(order, who)
			}
		}
	}
	if got := strings.Join(order, " "); got != "lb1 lb2" {
		t.Errorf("single holders in order: %s, want lb1 lb2", got)
	}
	addrs, err := h[2].Addrs()
	must(t, err)
	if got := fmt.Sprint(addrs); !strings.Contains(got, vip.String()) {
		t.Errorf("lb2's addresses are %s, want %v among them", got, vip)
	}
}

// A second switch carries on when the first one is cut, and the other way around.
func TestSegment(t *testing.T) {
	w, h := world(t, "a", "b")
	s, err := w.AddSegment("second", netip.MustParsePrefix("198.18.1.0/24"))
	must(t, err)
	for _, host := range h {
		if got, err := s.Attach(host, "eth1"); err != nil || got.As4()[3] != host.Addr.As4()[3] {
			t.Fatalf("attached at %v: %v", got, err)
		}
	}
	first, err := h[1].ServeEcho(7)
	must(t, err)
	second := netip.AddrPortFrom(s.addr(h[1]), 8)
	l, err := h[1].Listen("tcp", second.String())
	must(t, err)
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	if !reaches(h[0], first) || !reaches(h[0], second) {
		t.Fatal("b is not reachable over both links")
	}
	must(t, w.Cut(h[1]))
	if reaches(h[0], first) || !reaches(h[0], second) {
		t.Error("a cut of the first link reached the second, or did not cut")
	}
	must(t, w.Heal(), s.Plug(h[1], false))
	if !reaches(h[0], first) || reaches(h[0], second) {
		t.Error("the second link's plug does nothing, or reached the first")
	}
}

func TestPowerOffKillsAllAndPowerOnStartsClean(t *testing.T) {
	w, h := world(t, "client", "lb1")
	// A daemon that leaves its parent, its process group and its session, as a guard does.
	must(t, start(t, h[1], "setsid sleep 600 & setsid sleep 600 & wait"))
	within(t, "three processes run on lb1", func() bool { pids, err := h[1].Processes(); return len(pids) >= 3 && err == nil })
	echo, err := h[1].ServeEcho(7)
	must(t, err, h[1].AddAddr(netip.MustParsePrefix("198.18.0.100/32")))
	if !reaches(h[0], echo) {
		t.Fatal("lb1 is not reachable before")
	}
	must(t, h[1].PowerOff())
	if pids, err := h[1].Processes(); len(pids) != 0 || err != nil {
		t.Errorf("after the power was cut %v still run, %v", pids, err)
	}
	if reaches(h[0], echo) {
		t.Error("lb1 still answers")
	}
	must(t, w.Heal())
	if reaches(h[0], echo) {
		t.Error("healing the wire switched lb1 on")
	}
	must(t, h[1].PowerOn())
	addrs, err := h[1].Addrs()
	must(t, err)
	if strings.Contains(fmt.Sprint(addrs), "198.18.0.100") {
		t.Errorf("an address survived the power cut: %v", addrs)
	}
	echo, err = h[1].ServeEcho(7)
	must(t, err)
	within(t, "lb1 is reachable again", func() bool { return reaches(h[0], echo) })
}

// start starts a shell script inside a host and leaves it to the host's end.
func start(t *testing.T, h *Host, script string) error {
	t.Helper()
	_, err := h.Start(Command("/bin/sh", "-c", script))
	return err
}

func TestProcessesAreStoppedSignalledAndAwaited(t *testing.T) {
	_, h := world(t, "a")
	var out bytes.Buffer
	cmd := Command("/bin/sh", "-c", `trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done`)
	r, wr, err := os.Pipe()
	must(t, err)
	defer r.Close()
	cmd.Stdout = wr
	p, err := h[0].Start(cmd)
	must(t, err)
	wr.Close()
	lines := bufio.NewReader(io.TeeReader(r, &out))
	_, err = lines.ReadString('\n')
	must(t, err)
	must(t, p.Stop(10*time.Second))
	if err := p.Err(); err != nil {
		t.Errorf("it ended with %v, want status 0", err)
	}
	io.Copy(io.Discard, lines)
	if out.String() != "up\nbye\n" {
		t.Errorf("it wrote %q, want up and bye", out.String())
	}
	deaf, err := h[0].Start(Command("/bin/sh", "-c", `trap '' TERM; while :; do sleep 0.01; done`))
	must(t, err)
	within(t, "it ignores SIGTERM", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", deaf.Pid))
		_, rest, _ := strings.Cut(string(b), "SigIgn:\t")
		word, _, _ := strings.Cut(rest, "\n")
		ignored, err := strconv.ParseUint(word, 16, 64) // others may be ignored too: a background job inherits SIGINT and SIGQUIT so
		return err == nil && ignored&(1<<(unix.SIGTERM-1)) != 0
	})
	if err := deaf.Stop(50 * time.Millisecond); err == nil {
		t.Error("Stop says nothing of having killed a process that ignores SIGTERM")
	}
	if _, err := h[0].Start(Command("/no/such/program")); err == nil {
		t.Error("a program that does not exist was started")
	}
	stopped, err := h[0].Start(Command("sleep", "600"))
	must(t, err)
	must(t, h[0].Signal(unix.SIGSTOP))
	within(t, "it is stopped", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", stopped.Pid))
		return strings.Contains(string(b), ") T ")
	})
	stopped.Kill()
	if stopped.Err() == nil {
		t.Error("a killed process ended without an error")
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

// TestLabLeavesNothingBehind starts this test program once more, lets it build a world with processes in it, and kills it the
// hard way.
func TestLabLeavesNothingBehind(t *testing.T) {
	if enterErr != nil {
		t.Skipf("no lab on this machine: %v", enterErr)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHelperHangsWithAWorld$", "-test.v")
	cmd.Env = append(os.Environ(), "LAB_HELPER=1")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var inode uint64
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, n, ok := strings.Cut(lines.Text(), "namespace "); ok {
			inode, err = strconv.ParseUint(n, 10, 64)
			must(t, err)
			break
		}
	}
	pids, err := processesIn([]uint64{inode})
	if err != nil || len(pids) == 0 {
		t.Errorf("the helper's world has the processes %v, %v; want some", pids, err)
	}
	must(t, cmd.Process.Kill())
	cmd.Wait()
	within(t, "all processes of the dead lab are gone", func() bool {
		pids, err := processesIn([]uint64{inode})
		return len(pids) == 0 && err == nil
	})
}

func TestHelperHangsWithAWorld(t *testing.T) {
	if os.Getenv("LAB_HELPER") == "" {
		return // only a helper of TestLabLeavesNothingBehind
	}
	_, h := world(t, "a")
	must(t, start(t, h[0], "setsid sleep 600 & setsid sleep 600 & wait"))
	within(t, "the processes run", func() bool { pids, _ := h[0].Processes(); return len(pids) >= 3 })
	fmt.Printf("namespace %d\n", h[0].ns().inode)
	time.Sleep(time.Minute)
}

// TestAsAnOrdinaryUser runs the most telling tests once more without privileges, in a user namespace.
func TestAsAnOrdinaryUser(t *testing.T) {
	switch {
	case os.Getenv("LAB_ORDINARY") != "":
		return
	case os.Getuid() != 0:
		t.Skip("the other tests run as an ordinary user already")
	case enterErr != nil:
		t.Skipf("no lab on this machine: %v", enterErr)
	}
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^(TestCuts|TestHosts|TestWatch|TestPowerOff|TestOneWay)")
	cmd.Env = append(os.Environ(), "LAB_ORDINARY=1", "HOME=/", "TMPDIR=/tmp")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err == nil && bytes.Contains(out, []byte("no lab on this machine")) {
		t.Skipf("an ordinary user has no labs here:\n%s", out)
	}
	if err != nil || bytes.Count(out, []byte("--- PASS")) < 5 {
		t.Errorf("as uid 65534: %v\n%s", err, out)
	}
}

func TestHintNamesTheSettingThatForbids(t *testing.T) {
	root := t.TempDir()
	if h := hint(root); !strings.Contains(h, "run as root") {
		t.Errorf("with no known setting in the way: %q", h)
	}
	for _, c := range []struct{ path, value, want string }{
		{"proc/sys/user/max_user_namespaces", "15000\n", "; run as root"},
		{"proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n", "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
		{"proc/sys/kernel/unprivileged_userns_clone", "0\n", "sysctl -w kernel.unprivileged_userns_clone=1"},
		{"proc/sys/user/max_user_namespaces", "0\n", "sysctl -w user.max_user_namespaces=15000"},
	} {
		path := filepath.Join(root, c.path)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(c.value), 0o644))
		if h := hint(root); !strings.Contains(h, c.want) {
			t.Errorf("with %s = %q the hint is %q, want %q in it", c.path, c.value, h, c.want)
		}
	}
}
