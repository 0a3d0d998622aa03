package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/api/apitest"
	"github.com/skeinlb/skein/api/client"
)

// Exit codes are a promise to scripts. Every error has one, wrapped or not.
func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{silent(2), 2},
		{errors.New("anything"), 1},
		{failf("", "no"), 1},
		{usagef("", "no"), 3},
		{&api.Error{Code: api.CodeInvalidConfig}, 1},
		{&api.Error{Code: api.CodeNotFound}, 1},
		{&api.Error{Code: api.CodeConflict}, 1},
		{&api.Error{Code: api.CodeInternal}, 1},
		{&api.Error{Code: api.CodeBadRequest}, 3},
		{&api.Error{Code: api.CodeDenied}, 4},
		{&client.Unreachable{Where: "x", Err: errors.New("y")}, 4},
		{&api.Error{Code: api.CodeNoQuorum}, 5},
		{&api.Error{Code: api.CodeStaleRevision}, 5},
		{&api.Error{Code: api.CodeUnknownOutcome}, 5},
		{&client.Unreachable{Where: "x", Err: context.Canceled}, 1}, // interrupted, not unreachable
		{context.DeadlineExceeded, 1},
	} {
		var out bytes.Buffer
		c := &cli{out: &out, errOut: &out, env: func(string) string { return "" }}
		if got := c.finish(tt.err); got != tt.want {
			t.Errorf("%v: exit code %d, want %d", tt.err, got, tt.want)
		}
		if tt.err == nil {
			continue
		}
		if got := c.finish(fmt.Errorf("wrapped: %w", tt.err)); got != tt.want {
			t.Errorf("wrapped %v: exit code %d, want %d", tt.err, got, tt.want)
		}
	}
}

// The socket is found by the flag, else by SKEIN_SOCKET; a real one is served here, for the path through the kernel.
func TestSocketIsFound(t *testing.T) {
	n := apitest.New(t, "lb1").Nodes["lb1"]
	path := filepath.Join(t.TempDir(), "skein.sock")
	l, err := api.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- api.New(n.Options()).Serve(ctx, l) }()
	for _, tt := range []struct {
		args []string
		env  string
		want int
	}{
		{[]string{"--socket", path, "node", "list", "-o", "name"}, "", 0},
		{[]string{"node", "list", "-o", "name"}, path, 0},
		{[]string{"--socket", path + ".not", "node", "list", "-o", "name"}, path, 4},
	} {
		var out, errOut bytes.Buffer
		c := &cli{out: &out, errOut: &errOut, now: time.Now, outWidth: func() int { return 0 }, env: func(name string) string {
			if name == "SKEIN_SOCKET" {
				return tt.env
			}
			return ""
		}}
		if got := c.run(t.Context(), tt.args); got != tt.want || got == 0 && out.String() != "lb1\n" {
			t.Errorf("%v with SKEIN_SOCKET=%s: exit %d, %s%s", tt.args, tt.env, got, &out, &errOut)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// `status -w` draws anew every second, goes on when the agent is away, and ends with the interrupt as a success.
func TestWatchGoesOnUntilInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t}
		w.change("nodes lb1 lb2 lb3")
		var out, errOut bytes.Buffer
		c := w.cli(&out, &errOut)
		gone := false
		c.cl = client.NewDial("/run/lb1.sock", func(ctx context.Context) (net.Conn, error) {
			if gone = !gone; gone {
				return nil, errors.New("the agent restarts")
			}
			return w.cluster.Nodes["lb1"].DialAPI(ctx)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		if code := c.run(ctx, []string{"status", "-w"}); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if n := strings.Count(out.String(), "DEGRADED: no configuration yet"); n != 3 {
			t.Errorf("drawn %d times in 3.5 s with one failure, want 3:\n%s", n, &out)
		}
		if !strings.Contains(errOut.String(), "the agent restarts") {
			t.Errorf("the agent's absence was not said: %s", &errOut)
		}
	})
}

// What takes longer than a second is said on a terminal, and taken back.
func TestProgressIsSaidAfterASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errOut bytes.Buffer
		c := &cli{errOut: &errOut, errTTY: true}
		p := c.progress("waiting for lb2")
		time.Sleep(900 * time.Millisecond)
		p.stop()
		if errOut.Len() > 0 {
			t.Errorf("after 900ms: %q", &errOut)
		}
		p = c.progress("waiting for lb3")
		time.Sleep(1100 * time.Millisecond)
		p.stop()
		p.stop()
		if got, want := errOut.String(), "waiting for lb3 ...\r\x1b[K"; got != want {
			t.Errorf("after 1.1s: %q, want %q", got, want)
		}
	})
}

// Ctrl-C at a question ends the command, although nobody has typed a line, and changes nothing.
func TestInterruptAtAQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t}
		w.change("nodes lb1 lb2 lb3")
		var out, errOut bytes.Buffer
		c := w.cli(&out, &errOut)
		typed, nobody := io.Pipe()
		defer nobody.Close()
		c.in, c.inTTY = typed, true
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if code := c.run(ctx, []string{"node", "remove", "lb3"}); code != exitFailed {
			t.Errorf("exit code %d, want %d", code, exitFailed)
		}
		if !strings.Contains(errOut.String(), "interrupted; nothing was changed") {
			t.Errorf("said %q", &errOut)
		}
		if n := len(w.cluster.Nodes["lb1"].View().Nodes); n != 3 {
			t.Errorf("%d nodes are left", n)
		}
	})
}
