package chaos

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/stage"
)

// outcome is what came of a strike.
type outcome struct {
	names   []string
	spans   []lab.Span
	held    stage.Held
	failed  int
	stalled time.Duration
}

// outage is for how long the client was not served.
func (o outcome) outage() (d time.Duration) {
	for _, s := range o.spans {
		if !s.To.IsZero() {
			d += s.To.Sub(s.From)
		}
	}
	return d
}

// report counts.
type report struct {
	seed  uint64
	rows  map[string][]outcome
	total int
	pairs int
	end   string
}

func newReport(seed uint64) *report { return &report{seed: seed, rows: map[string][]outcome{}} }

func (r *report) add(strikes []strike, o outcome) {
	name := strikes[0].name
	if len(strikes) > 1 {
		name = "two at a time"
		r.pairs++
	}
	r.total++
	r.rows[name] = append(r.rows[name], o)
}

// progress is how far the test is, in a line. Most requests of a fault that hits the holder fail, as they must.
func (r *report) progress(a *arena) string {
	done, failed := a.Fresh.Record.Count()
	return fmt.Sprintf("%v of %v: %d strikes, %d requests, %d failed; configuration %v",
		time.Since(a.begin).Round(time.Second), *length, r.total, done, failed, a.writer)
}

func (r *report) finish(a *arena) {
	s := a.Fresh.Record.Summary(a.begin)
	r.end = fmt.Sprintf("%d strikes in %v, seed %d; %d requests, %d failed; configuration: %v.\n", r.total, time.Since(a.begin).Round(time.Second), r.seed,
		s.Requests, s.Failed, a.writer)
}

// table is the report as a page of text.
func (r *report) table() string {
	var u unix.Utsname
	unix.Uname(&u)
	load, _ := os.ReadFile("/proc/loadavg")
	var b strings.Builder
	fmt.Fprintf(&b, "%s, kernel %s, load of the machine %s.\n%s\n", time.Now().UTC().Format(time.DateTime), unix.ByteSliceToString(u.Release[:]),
		strings.Join(strings.Fields(string(load))[:3], " "), r.end)
	fmt.Fprintf(&b, "%-26s %5s %10s %11s %14s %13s\n", "fault", "times", "median ms", "longest ms", "two, longest", "nobody, longest")
	for _, name := range slices.Sorted(maps.Keys(r.rows)) {
		var ds []time.Duration
		var two, none time.Duration
		for _, o := range r.rows[name] {
			ds = append(ds, o.outage())
			two, none = max(two, o.held.Longest), max(none, o.held.None)
		}
		slices.SortFunc(ds, cmp.Compare)
		fmt.Fprintf(&b, "%-26s %5d %10d %11d %14d %13d\n", name, len(ds), ds[len(ds)/2].Milliseconds(), ds[len(ds)-1].Milliseconds(),
			two.Milliseconds(), none.Milliseconds())
	}
	return b.String()
}
