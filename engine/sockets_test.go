package engine_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/engine"
)

// An engine follows another on the same sockets while clients come and go: no connection is refused, none is reset in a queue, what the
// former has it serves to its end, and nothing of it watches the sockets afterwards.
func TestAnEngineFollowsAnotherOnItsSockets(t *testing.T) {
	server := named(t, "s1")
	var text string
	old := start(t, engine.Options{Loops: 2}, func(port int) string { text = httpFrontend(port, "", server); return text })

	kept := old.dial()
	keptReader := bufio.NewReader(kept)
	ask(t, kept, keptReader, "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n")

	var done atomic.Bool
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for !done.Load() {
				c, err := net.Dial("tcp", old.addr)
				if err != nil {
					t.Errorf("connect: %v", err)
					return
				}
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
				b, err := io.ReadAll(c)
				c.Close()
				if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200 ") {
					t.Errorf("a request meanwhile: %q, %v", b, err)
					return
				}
			}
		})
	}

	sockets, err := old.e.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	if len(sockets) != 1 || len(sockets[0].FDs) != 2 || sockets[0].Addr.String() != old.addr {
		t.Fatalf("sockets %+v, want two of %s", sockets, old.addr)
	}
	inodes := map[uint64]bool{}
	for _, fd := range sockets[0].FDs {
		inodes[inode(t, fd)] = true
	}
	heir, err := engine.New(engine.Options{Loops: 2, Sockets: sockets})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- heir.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	if err := heir.Apply(parse(t, text)); err != nil {
		t.Fatal(err)
	}
	if n := watchers(t, inodes); n != 4 {
		t.Errorf("%d pollers watch the sockets, want two of each engine", n)
	}

	retired := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		retired <- old.e.Retire(ctx)
	}()
	for heir.Stats().Frontends[0].Requests == 0 && !t.Failed() {
		time.Sleep(time.Millisecond)
	}
	io.WriteString(kept, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") // an idle connection is not closed under a request that is on its way
	if resp, body := answer(t, keptReader, "GET"); resp.StatusCode != 200 || body != "s1" || !resp.Close {
		t.Errorf("on a connection from before: %d %q, asked to close: %v", resp.StatusCode, body, resp.Close)
	}
	kept.Close()
	if err := <-retired; err != nil {
		t.Errorf("the former engine: %v", err)
	}
	if n := watchers(t, inodes); n != 2 {
		t.Errorf("%d pollers watch the sockets after the former engine has drained, want two", n)
	}
	done.Store(true)
	clients.Wait()
}

// An engine that follows another has its loops, not one for each processor that is there by now. What they count adds up: every connection is
// one loop's, and every request one frontend's.
func TestLoopsCountWhateverTheProcessors(t *testing.T) {
	server := named(t, "s1")
	for _, c := range []struct{ loops, procs int }{{3, 1}, {1, 3}} {
		before := runtime.GOMAXPROCS(c.procs)
		var text string
		old := start(t, engine.Options{Loops: c.loops}, func(port int) string { text = httpFrontend(port, "", server); return text })
		sockets, err := old.e.Sockets()
		if err != nil {
			t.Fatal(err)
		}
		runtime.GOMAXPROCS(c.procs)
		heir, err := engine.New(engine.Options{Loops: c.loops, Sockets: sockets})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- heir.Run(ctx) }()
		if err := heir.Apply(parse(t, text)); err != nil {
			t.Fatal(err)
		}
		old.end()
		const clients = 30
		for range clients {
			conn := old.dial()
			ask(t, conn, bufio.NewReader(conn), "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		var st engine.Stats
		waitFor(t, "every request to be counted", func() bool { st = heir.Stats(); return st.Frontends[0].Requests == clients })
		open := int64(0)
		for _, l := range st.Loops {
			open += l.Clients
		}
		if f := st.Frontends[0]; len(st.Loops) != c.loops || open != clients || f.Connections != clients {
			t.Errorf("%d loops on %d processors: %d loops with %d clients; the frontend counted %d", c.loops, c.procs, len(st.Loops), open, f.Connections)
		}
		cancel()
		<-ended
		runtime.GOMAXPROCS(before)
	}
}

// Sockets that the first configuration does not listen on are closed, and those of a configuration that fails wait for the next one.
func TestInheritedSocketsOutliveAConfigurationThatFails(t *testing.T) {
	server := named(t, "s1")
	var text string
	old := start(t, engine.Options{Loops: 1}, func(port int) string { text = httpFrontend(port, "", server); return text })
	sockets, err := old.e.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.New(engine.Options{Loops: 2, Sockets: sockets}); err == nil || !strings.Contains(err.Error(), "1 sockets for 2 loops") {
		t.Errorf("two loops and one socket: %v", err)
	}
	heir, err := engine.New(engine.Options{Loops: 1, Sockets: sockets})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- heir.Run(ctx) }()
	defer func() { cancel(); <-ended }()

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	second := fmt.Sprintf("frontend \"g\" {\n bind = [\"127.0.0.1\"]\n http = %d\n backend = \"b\"\n}\n", taken.Addr().(*net.TCPAddr).Port)
	if err := heir.Apply(parse(t, text+second)); err == nil {
		t.Fatal("a port that is taken was listened on")
	}
	if err := heir.Apply(parse(t, text)); err != nil {
		t.Errorf("after a configuration that failed: %v", err)
	}
	old.end()
	c := old.dial()
	ask(t, c, bufio.NewReader(c), "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
}

func inode(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// watchers counts the entries of this process's pollers that are one of these sockets.
func watchers(t *testing.T, inodes map[uint64]bool) (n int) {
	t.Helper()
	dir, err := os.ReadDir("/proc/self/fdinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range dir {
		b, err := os.ReadFile("/proc/self/fdinfo/" + e.Name())
		if err != nil {
			continue // closed meanwhile
		}
		for line := range strings.Lines(string(b)) {
			var fd, events, pos, ino, dev uint64
			var data string
			if k, _ := fmt.Sscanf(line, "tfd: %d events: %x data: %s pos:%d ino:%x sdev:%x", &fd, &events, &data, &pos, &ino, &dev); k >= 5 && inodes[ino] {
				n++
			}
		}
	}
	return n
}
