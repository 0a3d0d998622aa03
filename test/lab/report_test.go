package lab

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// report collects the runs of some failures. Raw figures are kept: medians can be worked out again, runs cannot.
type report struct {
	name  string
	order []string
	rows  map[string][]result
}

func newReport(name string) *report { return &report{name: name, rows: map[string][]result{}} }

func (r *report) add(name string, res result) {
	if _, ok := r.rows[name]; !ok {
		r.order = append(r.order, name)
	}
	r.rows[name] = append(r.rows[name], res)
}

// lengths returns the outages of one failure, sorted.
func (r *report) lengths(name string) []time.Duration {
	var ds []time.Duration
	for _, res := range r.rows[name] {
		ds = append(ds, res.outage.Length())
	}
	slices.SortFunc(ds, cmp.Compare)
	return ds
}

// document is what is kept of a report.
type document struct {
	At       time.Time `json:"at"`
	Kernel   string    `json:"kernel"`
	CPUs     int       `json:"cpus"`
	Failures []figures `json:"failures"`
}

type figures struct {
	Failure  string  `json:"failure"`
	MedianMs float64 `json:"median_ms"`
	MaxMs    float64 `json:"max_ms"`
	Runs     []run   `json:"runs"`
}

type run struct {
	OutageMs   float64        `json:"outage_ms"`
	MovedMs    float64        `json:"new_holder_after_ms"`
	Requests   int            `json:"requests"`
	Failed     int            `json:"failed"`
	Errors     map[string]int `json:"errors,omitempty"`
	Before     string         `json:"holder_before"`
	After      string         `json:"holder_after"`
	TwoHolders int            `json:"two_holder_samples"`
	StalledMs  float64        `json:"machine_stood_still_ms"`
	DiskMs     float64        `json:"slowest_write_ms"`
}

// write prints the table and, where asked, keeps it with the raw figures.
func (r *report) write(t *testing.T) {
	t.Helper()
	doc := document{At: time.Now().UTC().Truncate(time.Second), Kernel: kernel(), CPUs: runtime.NumCPU()}
	var table strings.Builder
	fmt.Fprintf(&table, "%-40s %4s %11s %11s %8s %12s\n", "failure", "runs", "median ms", "longest ms", "failed", "two holders")
	for _, name := range r.order {
		ds := r.lengths(name)
		f := figures{Failure: name, MedianMs: ms(ds[len(ds)/2]), MaxMs: ms(ds[len(ds)-1])}
		failed, two := 0, 0
		for _, res := range r.rows[name] {
			f.Runs = append(f.Runs, run{
				OutageMs: ms(res.outage.Length()), MovedMs: ms(res.moved), Requests: res.outage.Requests, Failed: res.outage.Failed,
				Errors: res.outage.Errors, Before: res.before, After: res.after, TwoHolders: res.two,
				StalledMs: ms(res.stalled), DiskMs: ms(res.disk),
			})
			failed, two = failed+res.outage.Failed, two+res.two
		}
		doc.Failures = append(doc.Failures, f)
		fmt.Fprintf(&table, "%-40s %4d %11.1f %11.1f %8d %12d\n", name, len(ds), f.MedianMs, f.MaxMs, failed, two)
	}
	t.Logf("\n%s", table.String())
	head := fmt.Sprintf("%s, %s, kernel %s, %d CPUs. The client opens a fresh connection every 5 ms (deadline 250 ms each).\n"+
		"Outage: from the first failed request to the first whole answer of 20 good ones in a row.\n"+
		"Beside each run the .json says how long a request straight to a web server took at most: for so long the machine stood still;\n"+
		"and the slowest recent write of a survivor's log.\n\n",
		r.name, doc.At.Format(time.DateTime), doc.Kernel, doc.CPUs)
	save(t, r.name, doc, head+table.String())
}

// save keeps figures, raw and as a table, where that was asked for.
func save(t *testing.T, name string, doc any, table string) {
	t.Helper()
	if *results == "" {
		return
	}
	raw, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{name + ".json": string(raw) + "\n", name + ".txt": table} {
		if err := os.WriteFile(filepath.Join(*results, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func ms(d time.Duration) float64 { return float64(d.Round(100*time.Microsecond).Microseconds()) / 1000 }

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
