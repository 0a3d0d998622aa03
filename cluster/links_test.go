package cluster

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// The leader's host dies without a word while questions to it are being asked. They wait for one dial, not one after the other for
// one each, and the news of the next leader does not wait at all: the barrier behind an election came up to a second late when it did.
func TestADeadLeaderHoldsUpNeitherQuestionsNorTheNewsOfTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		l := &links{dial: func(ctx context.Context, node, _ string) (net.Conn, error) {
			dials++
			<-ctx.Done() // a lost SYN
			return nil, context.Cause(ctx)
		}}
		l.ctx, l.stop = context.WithCancel(t.Context())
		defer l.close()
		start := time.Now()
		answers := make(chan error)
		for range 5 {
			go func() {
				_, err := l.ask(t.Context(), "a", framePropose, nil)
				answers <- err
			}()
		}
		synctest.Wait()
		l.follow("b")
		if took := time.Since(start); took != 0 {
			t.Errorf("the news of the next leader took %v", took)
		}
		short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := l.get(short, "a"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 50*time.Millisecond {
			t.Errorf("a question with 50 ms got %v after %v", err, time.Since(start))
		}
		for range 5 {
			if err := <-answers; !errors.Is(err, ErrNoLeader) {
				t.Errorf("got %v, want ErrNoLeader", err)
			}
		}
		if took := time.Since(start); took != dialWait || dials != 1 {
			t.Errorf("five questions took %v and %d dials, want %v and one", took, dials, dialWait)
		}
	})
}
