package lab

import (
	"context"
	"path/filepath"
	"testing"
	"time"
)

// A sync that has not ended counts: it is what everybody waits for.
func TestDiskWatch(t *testing.T) {
	now := time.Now()
	w := &DiskWatch{syncs: []synced{{now.Add(-3 * time.Second), 5 * time.Second}, {now.Add(-time.Second), 2 * time.Second}}}
	if d := w.Slowest(now.Add(-2 * time.Second)); d != 2*time.Second {
		t.Errorf("slowest of the last 2 s: %v, want 2 s", d)
	}
	w.begun = now.Add(-time.Minute)
	if d := w.Slowest(now); d < time.Minute {
		t.Errorf("a sync goes on for a minute: %v", d)
	}

	w = &DiskWatch{Path: filepath.Join(t.TempDir(), "sync")}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	for w.Slowest(time.Time{}) == 0 {
		select {
		case err := <-done:
			t.Fatalf("it ended: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
