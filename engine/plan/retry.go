package plan

import (
	"math"

	"github.com/skeinlb/skein/config"
)

// Retries says how often and why a request is tried on another server. Immutable.
type Retries struct {
	Attempts int
	Connect  bool  // no connection came about
	Closed   bool  // the server closed it without an answer
	Timeout  bool  // no answer came in time
	status   uint8 // bit n: 500 + n
	share    int64 // what a request adds to a loop's Budget, in thousandths of a repetition
}

func compileRetries(c config.Retries) Retries {
	r := Retries{Attempts: c.Attempts, share: int64(math.Round(c.Budget * 1000))}
	for _, w := range c.On {
		switch w {
		case "connect":
			r.Connect = true
		case "closed":
			r.Closed = true
		case "timeout":
			r.Timeout = true
		default:
			r.status |= 1 << (w[2] - '0')
		}
	}
	return r
}

// Status says whether a response of that status is a reason to ask another server.
func (r *Retries) Status(status int) bool {
	return r.status != 0 && status >= 500 && status < 508 && r.status>>(status-500)&1 != 0
}

// Repeats says that requests may be sent a second time: what is tried again because nothing was sent costs no server anything, and
// needs no budget.
func (r *Retries) Repeats() bool { return r.Closed || r.Timeout || r.status != 0 }

// Budget bounds the repetitions of one loop: a bucket that every request fills a little, and time a little too. One
// loop owns it. It is full at first, and after a new configuration.
type Budget struct {
	left  int64 // in thousandths
	at    int64 // when time last filled it
	begun bool
}

// Bounds of a Budget, in thousandths of a repetition: a backend with few requests may still repeat one of them now and then.
const (
	budgetMost  = 10_000
	budgetFloor = 1_000 // per second
)

// Earn fills the budget for one request.
func (b *Budget) Earn(r *Retries) { b.left = min(b.left+r.share, budgetMost) }

// Spend takes out one repetition, or says that there is none left.
func (b *Budget) Spend(now int64) bool {
	if !b.begun {
		b.begun, b.at, b.left = true, now, budgetMost
	}
	if ms := (now - b.at) / 1e6; ms > 0 {
		b.left = min(b.left+ms*budgetFloor/1000, budgetMost)
		b.at += ms * 1e6
	}
	if b.left < 1000 {
		return false
	}
	b.left -= 1000
	return true
}

// Earn fills the loop's retry budget for one request, where there is something to fill it for.
func (b *Backend) Earn(loop int) {
	if b.Retries.Repeats() {
		b.budget[loop].Earn(&b.Retries)
	}
}

// Spend takes a repetition from the loop's budget, or says that there is none left.
func (b *Backend) Spend(loop int, now int64) bool { return b.budget[loop].Spend(now) }
