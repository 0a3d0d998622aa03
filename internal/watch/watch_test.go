package watch

import (
	"context"
	"testing"
	"testing/synctest"
)

func TestSlowReaderIsLateNeverWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var v Value[int]
		ctx, cancel := context.WithCancel(t.Context())
		var seen []int
		hold := make(chan struct{})
		done := make(chan struct{})
		go func() {
			v.Each(ctx, func(n int) { seen = append(seen, n); <-hold })
			close(done)
		}()
		synctest.Wait()
		for i := 1; i <= 100; i++ {
			v.Set(i)
		}
		close(hold)
		synctest.Wait()
		cancel()
		<-done
		if len(seen) != 2 || seen[0] != 0 || seen[1] != 100 {
			t.Errorf("a reader that slept through 100 values saw %v, want the first and the last", seen)
		}
	})
}

func TestWaitReturnsTheFirstFittingValueOrTheContextsError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var v Value[int]
		go func() { v.Update(func(n int) int { return n + 7 }) }()
		if n, err := v.Wait(t.Context(), func(n int) bool { return n == 7 }); n != 7 || err != nil {
			t.Errorf("Wait = %d, %v; want 7, nil", n, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if n, err := v.Wait(ctx, func(n int) bool { return false }); n != 7 || err != context.Canceled {
			t.Errorf("Wait = %d, %v; want 7, %v", n, err, context.Canceled)
		}
	})
}
