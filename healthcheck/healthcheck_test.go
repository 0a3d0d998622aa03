package healthcheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinlb/skein/config"
)

// farm is a set of fake servers in virtual time.
type farm struct {
	mu     sync.Mutex
	errs   map[string]error // by server name; nil: answers
	probes map[string][]time.Duration
	start  time.Time
	hang   time.Duration // how long an answer takes
}

func newFarm() *farm {
	return &farm{errs: map[string]error{}, probes: map[string][]time.Duration{}, start: time.Now()}
}

func (f *farm) set(server string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errs[server] = err
}

func (f *farm) seen(server string) []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.probes[server])
}

func (f *farm) probe(t Target) probe {
	return func(ctx context.Context) (string, error) {
		f.mu.Lock()
		f.probes[t.Server] = append(f.probes[t.Server], time.Since(f.start))
		err, hang := f.errs[t.Server], f.hang
		f.mu.Unlock()
		select {
		case <-time.After(hang):
		case <-ctx.Done():
			return "", ctx.Err()
		}
		return "answered", err
	}
}

var check = &config.Check{Kind: config.CheckTCP, Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3}

func target(server string, c *config.Check) Target {
	return Target{Key{"shop", server}, netip.MustParseAddrPort("198.18.0.21:80"), c}
}

// run runs body with a Checker over f's servers, in virtual time.
func run(t *testing.T, targets []Target, body func(t *testing.T, c *Checker, f *farm, log *bytes.Buffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		f, c := newFarm(), New(slog.New(slog.NewTextHandler(&log, nil)))
		c.newProbe = f.probe
		c.Set(targets)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		body(t, c, f, &log)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil after its context ended", err)
		}
	})
}

func verdict(c *Checker, server string) Verdict {
	synctest.Wait()
	return c.Verdicts().Get()[Key{"shop", server}]
}

func TestDeadServerIsKnownASecondAfterTheStartAndRecoversByRise(t *testing.T) {
	run(t, []Target{target("s1", check), target("s2", check)}, func(t *testing.T, c *Checker, f *farm, log *bytes.Buffer) {
		f.set("s2", syscall.ECONNREFUSED)
		if v := verdict(c, "s2"); !v.Up || v.Why != "not probed yet" {
			t.Errorf("before the first probe: %+v, want up and not probed yet", v)
		}
		time.Sleep(firstSpread)
		if v := verdict(c, "s1"); !v.Up || v.Why != "answered" {
			t.Errorf("s1 after a second: %+v, want up", v)
		}
		if v := verdict(c, "s2"); v.Up || v.Why != "connection refused" || v.Passive {
			t.Errorf("s2 after a second: %+v, want down: connection refused", v)
		}
		if !strings.Contains(log.String(), `msg="server down" backend=shop server=s2`) {
			t.Errorf("the log does not tell of s2: %s", log)
		}
		f.set("s2", nil)
		time.Sleep(2 * check.Interval)
		if v := verdict(c, "s2"); !v.Up {
			t.Errorf("s2 after %v of good probes: %+v, want up", 2*check.Interval, v)
		}
		if strings.Count(log.String(), "\n") != 2 {
			t.Errorf("want one line per change of state, got\n%s", log)
		}
	})
}

func TestProbesAreSteadyAndSpreadAndFasterWhileInDoubt(t *testing.T) {
	var targets []Target
	for i := range 100 {
		targets = append(targets, target(fmt.Sprintf("s%d", i), check))
	}
	run(t, targets, func(t *testing.T, c *Checker, f *farm, _ *bytes.Buffer) {
		time.Sleep(10 * check.Interval)
		slots := map[int]int{}
		for _, g := range targets {
			at := f.seen(g.Server)
			if n := len(at); n < 10 || n > 11 {
				t.Fatalf("%s was probed %d times in ten intervals: %v", g.Server, n, at)
			}
			if at[0] > firstSpread {
				t.Errorf("%s was first probed after %v, want within %v", g.Server, at[0], firstSpread)
			}
			for i := 2; i < len(at); i++ {
				if d := at[i] - at[i-1]; d != check.Interval {
					t.Errorf("%s: probes %d and %d are %v apart, want %v", g.Server, i-1, i, d, check.Interval)
				}
			}
			slots[int(at[5]%check.Interval*10/check.Interval)]++
		}
		for s := range 10 {
			if n := slots[s]; n < 3 || n > 22 {
				t.Errorf("a tenth of an interval holds %d of 100 probes, want about ten: %v", n, slots)
				break
			}
		}
		// Fall = 3 at a quarter of the interval: at most an interval until the first bad probe, half a one for the others.
		for _, g := range targets {
			f.set(g.Server, syscall.ECONNRESET)
		}
		time.Sleep(check.Interval + check.Interval/2)
		for _, g := range targets {
			if v := verdict(c, g.Server); v.Up {
				t.Errorf("%s is still up after an interval and a half: %+v", g.Server, v)
			}
		}
	})
}

func TestSetKeepsTheStateOfWhatStayed(t *testing.T) {
	a, b := target("s1", check), target("s2", check)
	run(t, []Target{a, b}, func(t *testing.T, c *Checker, f *farm, _ *bytes.Buffer) {
		f.set("s1", syscall.ECONNREFUSED)
		time.Sleep(9 * time.Second)
		before, n := verdict(c, "s1"), len(f.seen("s1"))
		again := *check // a new pointer with the same value, as after a new Parse
		c.Set([]Target{target("s1", &again)})
		if v := verdict(c, "s1"); v != before {
			t.Errorf("after an idempotent Set: %+v, want %+v", v, before)
		}
		if _, ok := c.Verdicts().Get()[b.Key]; ok {
			t.Error("a removed target still has a verdict")
		}
		s2 := len(f.seen("s2"))
		time.Sleep(2 * time.Second)
		if got := len(f.seen("s1")); got != n+1 {
			t.Errorf("s1 was probed %d times in an interval after Set, want once", got-n)
		}
		if got := len(f.seen("s2")); got != s2 {
			t.Errorf("s2 was probed after its removal")
		}
		other := *check
		other.Interval = 5 * time.Second
		c.Set([]Target{target("s1", &other)})
		if v := verdict(c, "s1"); v.Up {
			t.Errorf("a changed check forgot that the server is down: %+v", v)
		}
		f.set("s1", nil)
		time.Sleep(firstSpread)
		if v := verdict(c, "s1"); !v.Up {
			t.Errorf("the first result of a changed check did not decide: %+v", v)
		}
		moved := target("s1", &other)
		moved.Address = netip.MustParseAddrPort("198.18.0.99:80")
		f.set("s1", syscall.ECONNREFUSED)
		c.Set([]Target{moved})
		if v := verdict(c, "s1"); !v.Up || v.Checks != 0 {
			t.Errorf("a new address is a new server, got %+v", v)
		}
	})
}

func TestSeedsHoldUntilTheFirstProbe(t *testing.T) {
	run(t, []Target{target("s1", check), target("s2", nil)}, func(t *testing.T, c *Checker, f *farm, _ *bytes.Buffer) {
		c.Seed(map[Key]bool{{"shop", "s1"}: false, {"shop", "s2"}: false, {"shop", "late"}: false})
		if v := verdict(c, "s1"); v.Up {
			t.Errorf("seeded as down: %+v", v)
		}
		if v := verdict(c, "s2"); !v.Up {
			t.Errorf("a server without a check was taken down by a seed, nothing would bring it up: %+v", v)
		}
		c.Set([]Target{target("s1", check), target("late", check)})
		if v := verdict(c, "late"); v.Up {
			t.Errorf("seeded as down before it was set: %+v", v)
		}
		time.Sleep(firstSpread)
		if v := verdict(c, "s1"); !v.Up || v.Why != "answered" {
			t.Errorf("after the first probe: %+v, want up", v)
		}
		c.Seed(map[Key]bool{{"shop", "s1"}: false})
		if v := verdict(c, "s1"); !v.Up {
			t.Errorf("a seed outranked a probe: %+v", v)
		}
	})
}

func TestFailuresOfTrafficTakeAServerDownBetweenProbes(t *testing.T) {
	run(t, []Target{target("s1", check)}, func(t *testing.T, c *Checker, f *farm, _ *bytes.Buffer) {
		time.Sleep(3*time.Second + 300*time.Millisecond)
		f.set("s1", syscall.ECONNREFUSED)
		k, start := Key{"shop", "s1"}, time.Now()
		for range 3 {
			c.Failed(k)
		}
		c.Failed(Key{"shop", "unknown"})
		if v := verdict(c, "s1"); v.Up || !v.Passive || v.Why != "connection failed (seen by traffic)" && v.Why != "connection refused" {
			t.Errorf("after three failed connections: %+v, want down by traffic", v)
		}
		f.set("s1", nil)
		if _, err := c.Verdicts().Wait(t.Context(), func(vs map[Key]Verdict) bool { return vs[k].Up }); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > 2*check.Interval {
			t.Errorf("it took %v to come back", d)
		}
		if v := verdict(c, "s1"); v.Passive {
			t.Errorf("it came back by probes, not by traffic: %+v", v)
		}
	})
}

func TestOneFailedConnectionIsSetRightByAProbeAtOnce(t *testing.T) {
	for name, check := range map[string]*config.Check{"checked": check, "unchecked": nil} {
		t.Run(name, func(t *testing.T) {
			run(t, []Target{target("s1", check)}, func(t *testing.T, c *Checker, f *farm, _ *bytes.Buffer) {
				time.Sleep(3 * time.Second)
				// One failure in 150 ms, for ever: an overloaded server that still answers stays in.
				for range 100 {
					n := len(f.seen("s1"))
					c.Failed(Key{"shop", "s1"})
					time.Sleep(150 * time.Millisecond)
					if v := verdict(c, "s1"); !v.Up {
						t.Fatalf("went down: %+v", v)
					}
					if len(f.seen("s1")) == n {
						t.Fatal("a failed connection did not bring the next probe forward")
					}
				}
			})
		})
	}
}

// Whoever takes away a check because it is wrong wants the server that it holds down back.
func TestAServerThatIsDownWhenItsCheckIsTakenAwayIsProbedUntilItAnswers(t *testing.T) {
	run(t, []Target{target("s1", check)}, func(t *testing.T, c *Checker, f *farm, _ *bytes.Buffer) {
		f.set("s1", errors.New("HTTP 404, want 200-399"))
		time.Sleep(firstSpread)
		if v := verdict(c, "s1"); v.Up {
			t.Fatalf("before: %+v, want down", v)
		}
		c.Set([]Target{target("s1", nil)})
		time.Sleep(2 * time.Second)
		if v := verdict(c, "s1"); v.Up {
			t.Errorf("without a check, and still no answer: %+v, want down", v)
		}
		f.set("s1", nil)
		time.Sleep(2 * time.Second)
		if v := verdict(c, "s1"); !v.Up {
			t.Errorf("it answers: %+v, want up", v)
		}
		n := len(f.seen("s1"))
		time.Sleep(time.Minute)
		if got := len(f.seen("s1")); got != n {
			t.Errorf("%d probes after it was up again, want none", got-n)
		}
	})
}

func TestServerWithoutACheckIsProbedOnlyWhileDown(t *testing.T) {
	run(t, []Target{target("s1", nil)}, func(t *testing.T, c *Checker, f *farm, _ *bytes.Buffer) {
		time.Sleep(time.Minute)
		if v := verdict(c, "s1"); !v.Up || v.Why != "not checked" || len(f.seen("s1")) != 0 {
			t.Fatalf("an unchecked server in peace: %+v, %d probes; want up and none", v, len(f.seen("s1")))
		}
		f.set("s1", syscall.ECONNREFUSED)
		for range 3 {
			c.Failed(Key{"shop", "s1"})
		}
		if v := verdict(c, "s1"); v.Up || !v.Passive {
			t.Fatalf("after three failures: %+v, want down", v)
		}
		time.Sleep(10 * time.Second)
		if n := len(f.seen("s1")); n < 9 || n > 12 {
			t.Errorf("%d probes in 10 s while down, want one a second", n)
		}
		f.set("s1", nil)
		time.Sleep(time.Second)
		if v := verdict(c, "s1"); !v.Up {
			t.Errorf("it answers again: %+v, want up", v)
		}
		n := len(f.seen("s1"))
		time.Sleep(time.Minute)
		if got := len(f.seen("s1")); got != n {
			t.Errorf("%d probes after it was up again, want none", got-n)
		}
	})
}

// A server that swallows packets keeps a probe waiting for its whole time-out; traffic that fails meanwhile counts at once.
func TestTrafficCountsWhileAProbeHangs(t *testing.T) {
	slow := *check
	slow.Timeout, slow.Interval = 10*time.Second, 20*time.Second
	run(t, []Target{target("s1", &slow)}, func(t *testing.T, c *Checker, f *farm, _ *bytes.Buffer) {
		time.Sleep(firstSpread)
		f.mu.Lock()
		f.hang = time.Hour
		f.mu.Unlock()
		time.Sleep(slow.Interval + slow.Interval - time.Second) // a probe is on its way, or over and in doubt
		for range 3 {
			c.Failed(Key{"shop", "s1"})
		}
		if v := verdict(c, "s1"); v.Up || !v.Passive {
			t.Errorf("after three failures: %+v, want down by traffic", v)
		}
		time.Sleep(slow.Timeout)
		if v := verdict(c, "s1"); v.Why != "no answer within 10s" {
			t.Errorf("Why = %q, want the probe's time-out", v.Why)
		}
	})
}

func TestTroubleOfThisNodeCountsAgainstNobody(t *testing.T) {
	run(t, []Target{target("s1", check)}, func(t *testing.T, c *Checker, f *farm, log *bytes.Buffer) {
		for _, err := range []error{syscall.EMFILE, errNotPermitted, fmt.Errorf("wrapped: %w", syscall.EADDRNOTAVAIL)} {
			f.set("s1", err)
			time.Sleep(10 * check.Interval)
			if v := verdict(c, "s1"); !v.Up || v.Failures != 0 || !strings.HasPrefix(v.Why, "cannot probe: ") {
				t.Errorf("%v: %+v, want up and said so", err, v)
			}
		}
		f.set("s1", errors.New("no"))
		time.Sleep(2 * check.Interval)
		if v := verdict(c, "s1"); v.Up {
			t.Errorf("a bad answer: %+v, want down", v)
		}
	})
}

func TestCountersArePublishedWithinASecond(t *testing.T) {
	run(t, []Target{target("s1", check)}, func(t *testing.T, c *Checker, f *farm, _ *bytes.Buffer) {
		time.Sleep(10*check.Interval + republish)
		if v, n := verdict(c, "s1"), len(f.seen("s1")); v.Checks < uint64(n)-1 {
			t.Errorf("published %d checks, made %d", v.Checks, n)
		}
	})
}

func TestTargetsNamesEveryServer(t *testing.T) {
	c := &config.Config{Backends: []*config.Backend{
		{Name: "a", Check: check, Servers: []*config.Server{{Name: "s1", Address: netip.MustParseAddrPort("198.18.0.1:1")}}},
		{Name: "b", Servers: []*config.Server{{Name: "s1", Address: netip.MustParseAddrPort("198.18.0.2:2")}}},
	}}
	want := []Target{
		{Key{"a", "s1"}, netip.MustParseAddrPort("198.18.0.1:1"), check},
		{Key{"b", "s1"}, netip.MustParseAddrPort("198.18.0.2:2"), nil},
	}
	if got := Targets(c); !slices.Equal(got, want) {
		t.Errorf("Targets = %v, want %v", got, want)
	}
}
