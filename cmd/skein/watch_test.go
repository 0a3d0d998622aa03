package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// On a terminal `top` draws anew every second, and ends with the interrupt as a success.
func TestTopGoesOnUntilInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t}
		w.change("nodes lb1 lb2 lb3")
		var out, errOut bytes.Buffer
		c := w.cli(&out, &errOut)
		c.outTTY = true
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		if code := c.run(ctx, []string{"top"}); code != 0 {
			t.Errorf("exit code %d: %s", code, &errOut)
		}
		if n := strings.Count(out.String(), "\x1b[H\x1b[2J"); n != 3 {
			t.Errorf("drawn %d times in 2.5 s, want 3:\n%s", n, &out)
		}
	})
}

// In a pipe, an agent that is away is said once.
func TestWatchSaysOnceThatNoAgentAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out, errOut bytes.Buffer
		c := (&world{t: t}).cli(&out, &errOut)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if code := c.run(ctx, []string{"status", "-w", "--socket", "/nowhere/skein.sock"}); code != exitOK {
			t.Errorf("exit code %d", code)
		}
		if n := strings.Count(errOut.String(), "error: no agent on /nowhere/skein.sock"); n != 1 || out.Len() > 0 {
			t.Errorf("said %d times, want once:\n%s%s", n, &out, &errOut)
		}
	})
}
