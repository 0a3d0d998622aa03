package engine_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/plan"
)

// few is how many descriptors the engine's process has in TestScarceDescriptors.
const few = 160

// TestMain is the engine of TestScarceDescriptors in a process of its own, when it is asked to be.
func TestMain(m *testing.M) {
	if server := os.Getenv("SKEIN_TEST_SCARCE"); server != "" {
		if err := scarceEngine(server); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// scarceEngine serves with few descriptors, on the port that it prints, until its input ends. It answers a line of input with its
// numbers.
func scarceEngine(server string) error {
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: few, Max: few}); err != nil {
		return err
	}
	a, err := net.ResolveTCPAddr("tcp", server)
	if err != nil {
		return err
	}
	e, err := engine.New(engine.Options{Loops: 2})
	if err != nil {
		return err
	}
	go e.Run(context.Background())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	text := with(httpFrontend(port, "timeouts {\n idle = \"60s\"\n}", a), "", "timeouts {\n headers = \"60s\"\n}")
	conf, diags := config.Parse("test.hcl", []byte(text))
	if conf == nil {
		return diags
	}
	if err := e.Apply(conf); err != nil {
		return err
	}
	fmt.Println(port)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		st := e.Stats()
		var use syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &use)
		f := st.Frontends[0]
		var pauses uint64
		for _, l := range st.Loops {
			pauses += l.Pauses
		}
		fmt.Println(f.Open(), f.Failures[plan.OutOfDescriptors], pauses, use.Utime.Nano()+use.Stime.Nano())
	}
	return nil
}

// scarce is that process.
type scarce struct {
	t    *testing.T
	addr string
	in   io.Writer
	out  *bufio.Reader
}

type scarceNumbers struct {
	open, failed, pauses int64
	cpu                  time.Duration
}

func (s *scarce) numbers() (n scarceNumbers) {
	s.t.Helper()
	fmt.Fprintln(s.in)
	line, err := s.out.ReadString('\n')
	if err != nil {
		s.t.Fatalf("the engine's process: %v", err)
	}
	fmt.Sscan(line, &n.open, &n.failed, &n.pauses, (*int64)(&n.cpu))
	return n
}

func startScarce(t *testing.T, server net.Addr) *scarce {
	cmd := exec.Command(os.Args[0], "-test.run=none")
	cmd.Env = append(os.Environ(), "SKEIN_TEST_SCARCE="+server.String())
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the engine's process: %v", err)
		}
	})
	s := &scarce{t: t, in: in, out: bufio.NewReader(out)}
	port, err := s.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the engine's process: %v", err)
	}
	s.addr = "127.0.0.1:" + strings.TrimSpace(port)
	return s
}

func (s *scarce) get(c net.Conn, br *bufio.Reader) error {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != 200 {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}

func (s *scarce) dial() net.Conn {
	s.t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

func TestIdleClientsMakeRoomWhenDescriptorsAreScarce(t *testing.T) {
	// Three times as many clients as there are descriptors ask once each and keep their connections. Everybody is served; those who
	// came first find their idle connection closed.
	s := startScarce(t, serveHTTP(t, echo))
	var conns []net.Conn
	for i := range 3 * few {
		c := s.dial()
		conns = append(conns, c)
		if err := s.get(c, bufio.NewReader(c)); err != nil {
			t.Fatalf("client %d: %v", i+1, err)
		}
	}
	n := s.numbers()
	if n.open >= few || n.failed != 0 {
		t.Errorf("%d connections are open, %d failed for lack of descriptors", n.open, n.failed)
	}
	last := conns[len(conns)-1]
	if err := s.get(last, bufio.NewReader(last)); err != nil {
		t.Errorf("the last client's connection: %v", err)
	}
	if err := s.get(conns[0], bufio.NewReader(conns[0])); err == nil {
		t.Error("the first client's connection is still there")
	}
}

func TestAcceptingWaitsWhenEveryDescriptorIsBusy(t *testing.T) {
	// Clients that send half a head each cannot be closed to make room. Accepting stops before the last descriptor: who is in is
	// served. Nothing spins meanwhile, and as soon as some go, those who wait in the kernel's queue are served.
	s := startScarce(t, serveHTTP(t, echo))
	in := s.dial()
	br := bufio.NewReader(in)
	if err := s.get(in, br); err != nil {
		t.Fatal(err)
	}
	io.WriteString(in, "GET / HTTP/1.1\r\n") // so that it is not idle
	var half []net.Conn
	for range 2 * few {
		c := s.dial()
		io.WriteString(c, "GET / HT")
		half = append(half, c)
	}
	waitFor(t, "a pause", func() bool { return s.numbers().pauses > 0 })
	var before scarceNumbers
	waitFor(t, "the calm", func() bool {
		last := before
		before = s.numbers()
		return before.open == last.open
	})
	if before.open >= few-16 || before.open < few/2 {
		t.Errorf("%d connections were accepted of %d descriptors", before.open, few)
	}
	in.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(in, "Host: x\r\n\r\n")
	if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("who is in is not served: %v %v", resp, err)
	}
	start := time.Now()
	waitFor(t, "half a second to pass", func() bool { return time.Since(start) > 500*time.Millisecond })
	after := s.numbers()
	if cpu := after.cpu - before.cpu; cpu > 200*time.Millisecond {
		t.Errorf("waiting for %v took %v of CPU", time.Since(start), cpu)
	}
	if after.failed != 0 || after.open > before.open+2 {
		t.Errorf("meanwhile %d failed, and %d were accepted", after.failed, after.open-before.open)
	}
	waits := s.dial()
	for _, c := range half {
		c.Close()
	}
	if err := s.get(waits, bufio.NewReader(waits)); err != nil {
		t.Errorf("who has waited: %v", err)
	}
	t.Log(strconv.FormatInt(before.open, 10), "connections at", few, "descriptors,", after.pauses, "pauses")
}
