package lab

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A request every 5 ms that takes 1 ms: '.' is answered, 'x' is not. What lies between two outages is none, a lone success within one
// does not end it, and one that is not over has no end.
func TestSpansOfOutages(t *testing.T) {
	good := strings.Repeat(".", stableRun)
	for _, c := range []struct{ name, outcomes, want string }{
		{"nothing", good, ""},
		{"one", good + "xxx" + good, "100-116"},
		{"a success within", good + "x..x" + good, "100-121"},
		{"two", good + "x" + good + "x" + good, "100-106 205-211"},
		{"not over", good + "x...", "100-?"},
		{"before the event", "xxx" + good, "5-16"},
	} {
		base := time.Unix(1000, 0)
		var list []Outcome
		for i, r := range c.outcomes {
			o := Outcome{At: base.Add(time.Duration(i) * 5 * time.Millisecond), Took: time.Millisecond}
			if r == 'x' {
				o.Err = "refused"
			}
			list = append(list, o)
		}
		since := base
		if c.name == "before the event" {
			since = base.Add(5 * time.Millisecond) // the first has ended by then
		}
		var got []string
		for _, s := range spans(list, since) {
			to := "?"
			if !s.To.IsZero() {
				to = fmt.Sprint(s.To.Sub(base).Milliseconds())
			}
			got = append(got, fmt.Sprintf("%d-%s", s.From.Sub(base).Milliseconds(), to))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: outages %q, want %q", c.name, s, c.want)
		}
	}
}
