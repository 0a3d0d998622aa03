// Package loop is one thread's event loop: readiness, timers, a mailbox, and the few system calls that the data plane lives on.
//
// It knows descriptors and nanoseconds; it knows no protocol, no connection and no configuration. Raw system calls and unsafe
// live here and nowhere else on the request path. The one rule: everything but Post, Stop and the counters belongs to the
// goroutine that runs Run, and a handler never blocks.
package loop

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Limits of a loop.
const (
	maxEvents  = 256  // taken from the kernel at once; bounds how late a timer can be
	maxMailbox = 4096 // functions waiting in the mailbox
)

// stampEvery bounds the pause between two stamps of a loop that stamps its progress. Whoever reads them gives a loop half a second at least;
// two idle loops that woke up every 20 ms cost an agent 1.0 to 1.9 % of a slow processor more, by the runtime's monitor above all.
const stampEvery = 100 * time.Millisecond

// Options of a loop. The zero value is useful.
type Options struct {
	// Progress, when set, changes at least every 100 ms while the loop is alive. It may lie in memory that another process reads.
	Progress *atomic.Uint64
	// After, when set, is called at the end of every iteration. It returns whether there is more to do at once: the loop then
	// looks for events without sleeping.
	After func() (more bool)
	// End, when set, is called once the loop has been stopped and handles no events any more. What is in the mailbox by then is called
	// after it.
	End func()
}

// Handler is told what happened to a descriptor. It may be told of more than happened, never of less.
type Handler interface{ Ready(Events) }

// Loop is one event loop. Make it with New, give it a goroutine with Run.
type Loop struct {
	// Immutable.
	progress *atomic.Uint64
	after    func() bool
	end      func()
	wakefd   int
	base     time.Time

	// Owned by the goroutine in Run.
	poll   poller
	slots  []slot // by descriptor
	wheel  wheel
	gather gather
	now    int64 // nanoseconds since base, taken once per iteration
	woke   int64 // when the last wait or nap ended
	pipes  []*Pipe
	open   atomic.Int64 // pipes; any goroutine reads it
	more   bool         // After has more to do
	sleepy bool         // the last wait was long: leave the processor to others during the next one
	spin   int          // fruitless polls that are worth it before blocking

	stop atomic.Bool
	load Load

	mu sync.Mutex
	// mu guards the following.
	mail   []func()
	spare  []func()
	closed bool
}

// slot is what a descriptor means at the moment.
type slot struct {
	h     Handler
	gen   uint32 // of this registration: an event of an earlier one is stale
	heard uint32 // the window of gather in which it last had an event
}

// Load counts what a loop does. Any goroutine may read it.
type Load struct {
	Iterations atomic.Uint64
	Events     atomic.Uint64
	Sleeps     atomic.Uint64 // blocking waits
	Naps       atomic.Uint64 // moments waited for more events to come, see gather
	Posts      atomic.Uint64
	PostsFull  atomic.Uint64 // posts refused because the mailbox was full
	BusyNanos  atomic.Uint64 // time not spent in blocking waits and naps
}

// New returns a loop that does not run yet.
func New(o Options) (*Loop, error) {
	l := &Loop{progress: o.Progress, after: o.After, end: o.End, base: time.Now()}
	if l.after == nil {
		l.after = func() bool { return false }
	}
	if l.end == nil {
		l.end = func() {}
	}
	if err := l.poll.open(); err != nil {
		return nil, fmt.Errorf("open an event poller: %w", err)
	}
	fd, err := openEventfd()
	if err != nil {
		l.poll.close()
		return nil, fmt.Errorf("open a wake-up descriptor: %w", err)
	}
	l.wakefd = fd
	l.wheel.init()
	if err := l.WatchLevel(fd, wake{l}); err != nil {
		l.poll.close()
		Close(fd)
		return nil, err
	}
	l.tick()
	return l, nil
}

// Run handles events until Stop, on a thread of its own. It ends with the mailbox empty and refusing.
func (l *Loop) Run() {
	runtime.LockOSThread()
	punctual()
	named()
	defer runtime.UnlockOSThread()
	for !l.stop.Load() {
		n := l.wait()
		l.tick()
		l.gather.advance(l.now)
		l.load.Iterations.Add(1)
		l.load.Events.Add(uint64(n))
		for i := range n {
			fd, gen, ev := l.poll.event(i)
			if s := &l.slots[fd]; s.h != nil && s.gen == gen {
				l.gather.note(&s.heard)
				s.h.Ready(ev)
			}
		}
		l.wheel.advance(l.now)
		l.more = l.after()
	}
	l.end()
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.runMail()
	l.DropPipes()
	l.poll.close()
	Close(l.wakefd)
}

// wait returns the number of events at hand, after sleeping for them if there are none.
//
// A busy loop blocks in a raw system call: the runtime does not hear of it, so that it neither takes the processor away nor
// wakes its monitor every 20 us (7 to 28 % of the CPU, measured). The price: a stop-the-world reaches the loop as a signal, and
// an interrupted wait must pass a preemption point. An idle loop blocks in the runtime's own way, and holds nothing.
func (l *Loop) wait() int {
	if l.more {
		n, e := l.poll.wait(0)
		if e != 0 {
			return 0
		}
		return n
	}
	if l.gather.active >= gatherFrom {
		now := l.elapsed()
		if nap := l.gather.nap(now - l.now); nap > 0 {
			l.load.Naps.Add(1)
			l.rests(now)
			sleep(nap)
			l.woke = l.elapsed()
			l.gather.rest(l.woke - now)
			if n, e := l.poll.wait(0); e == 0 && n > 0 {
				return n
			}
		}
	}
	for range l.spin {
		if n, e := l.poll.wait(0); e == 0 && n > 0 {
			return n
		}
	}
	timeout := l.timeout()
	start := l.elapsed()
	l.rests(start)
	l.load.Sleeps.Add(1)
	var n int
	var e syscall.Errno
	if l.sleepy {
		n, e = l.poll.waitIdle(timeout)
	} else {
		n, e = l.poll.wait(timeout)
	}
	if e != 0 {
		runtime.Gosched() // EINTR: a preemption point, or a stop-the-world would wait for ever
		n = 0
	}
	l.woke = l.elapsed()
	slept := l.woke - start
	l.gather.rest(slept)
	l.sleepy = slept > int64(2*time.Millisecond)
	// A wake-up costs several polls' worth of CPU and, on a virtual machine, latency. When events come within that, look twice
	// before sleeping; when they do not, do not look at all.
	switch {
	case slept < int64(12*time.Microsecond):
		l.spin = min(l.spin+1, maxSpin)
	case slept > int64(100*time.Microsecond):
		l.spin = 0
	default:
		l.spin = 1
	}
	return n
}

// rests adds the time since the loop woke up to what it was busy.
func (l *Loop) rests(now int64) { l.load.BusyNanos.Add(uint64(now - l.woke)) }

// maxSpin bounds the polls before a blocking wait.
const maxSpin = 4

// timeout returns how long the loop may sleep, in milliseconds; -1 is for ever.
func (l *Loop) timeout() int {
	ms := l.wheel.sleep(l.now)
	if l.progress != nil {
		if limit := int(stampEvery / time.Millisecond); ms < 0 || ms > limit {
			ms = limit
		}
	}
	return ms
}

func (l *Loop) elapsed() int64 { return int64(time.Since(l.base)) }

// tick takes the time and stamps progress.
func (l *Loop) tick() {
	l.now = l.elapsed()
	if l.progress != nil {
		l.progress.Add(1)
	}
}

// Now returns the time of this iteration, in nanoseconds since the loop was made.
func (l *Loop) Now() int64 { return l.now }

// Load returns the loop's counters.
func (l *Loop) Load() *Load { return &l.load }

// Stop makes Run return soon. Any goroutine may call it, more than once.
func (l *Loop) Stop() {
	l.stop.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		wakeEventfd(l.wakefd)
	}
}

// Post has the loop call f soon. Any goroutine may call it. It returns false, and f is forgotten, when the mailbox is full or
// the loop has ended: a caller that must be heard tries again later, one that gives hints does not.
func (l *Loop) Post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.mail) >= maxMailbox {
		l.load.PostsFull.Add(1)
		return false
	}
	l.load.Posts.Add(1)
	l.mail = append(l.mail, f)
	if len(l.mail) == 1 {
		wakeEventfd(l.wakefd)
	}
	return true
}

// Ended says whether the loop takes no more posts for good.
func (l *Loop) Ended() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// wake empties the mailbox when its descriptor becomes readable.
type wake struct{ l *Loop }

func (w wake) Ready(Events) {
	drainEventfd(w.l.wakefd)
	w.l.runMail()
}

func (l *Loop) runMail() {
	l.mu.Lock()
	mail := l.mail
	l.mail, l.spare = l.spare[:0], nil
	l.mu.Unlock()
	for i, f := range mail {
		f()
		mail[i] = nil
	}
	l.mu.Lock()
	l.spare = mail[:0]
	l.mu.Unlock()
}

// Watch has h told of everything that happens to fd, edge-triggered and until Forget. What is true at the time of the call is
// told as well.
func (l *Loop) Watch(fd int, h Handler) error { return l.watch(fd, h, edgeEvents) }

// WatchLevel has h told while fd is readable.
func (l *Loop) WatchLevel(fd int, h Handler) error { return l.watch(fd, h, levelEvents) }

func (l *Loop) watch(fd int, h Handler, mask uint32) error {
	for fd >= len(l.slots) {
		l.slots = append(l.slots, make([]slot, max(256, len(l.slots)))...)
	}
	s := &l.slots[fd]
	s.gen++
	s.h = h
	if e := l.poll.add(fd, s.gen, mask); e != 0 {
		s.h = nil
		return fmt.Errorf("watch descriptor %d: %w", fd, e)
	}
	return nil
}

// Pause stops telling of fd without closing it; Watch or WatchLevel resumes.
func (l *Loop) Pause(fd int) {
	l.slots[fd].h = nil
	l.poll.remove(fd)
}

// Forget makes every event of fd stale. Its owner closes the descriptor next, which takes it from the poller.
func (l *Loop) Forget(fd int) {
	if fd < len(l.slots) {
		l.slots[fd].h = nil
	}
}
