// Package load asks a proxy for answers, from one thread and as cheaply as it can, and is the server behind it.
//
// A Job says what is asked for; Run does it and counts. Without a rate every connection asks again as soon as it has its answer
// (a closed loop, which finds the most that a proxy can do). With a rate requests are due at fixed times whatever the proxy does,
// and an answer's latency counts from when its request was due, not from when it could be sent: a proxy that stalls is charged
// for all that was due meanwhile. It does not look at what bodies say; Check does, once, before anything is measured.
package load

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Job is one stretch of load on one address.
type Job struct {
	Addr     string   `json:"addr"`     // IPv4 and port
	Requests [][]byte `json:"requests"` // heads, taken in turn
	Upload   int      `json:"upload,omitempty"`
	Want     int      `json:"want"` // bytes of the body of every answer
	Conns    int      `json:"connections"`
	Rate     float64  `json:"rate,omitempty"`  // requests due per second, over all connections; 0: a closed loop
	Close    bool     `json:"close,omitempty"` // a connection per request, which the other side ends

	TLS    bool `json:"tls,omitempty"`
	Resume bool `json:"resume,omitempty"` // of each session but the first

	Warm time.Duration `json:"warm"` // not counted
	For  time.Duration `json:"for"`  // counted

	Watch map[string][]int `json:"watch,omitempty"` // processes whose CPU time is taken over what is counted
}

// Result is what came of a job.
type Result struct {
	Requests uint64             `json:"requests"`
	Errors   uint64             `json:"errors,omitempty"` // connections that ended early and answers that were not 200, over the whole job
	Late     uint64             `json:"late,omitempty"`   // due, and not answered within graceTime after the end
	Resumed  uint64             `json:"resumed,omitempty"`
	Seconds  float64            `json:"seconds"`
	CPU      map[string]float64 `json:"cpu_seconds"` // by name of Watch; "load" is the generator's own
	P50us    float64            `json:"p50_us"`
	P90us    float64            `json:"p90_us"`
	P99us    float64            `json:"p99_us"`
	MaxUs    float64            `json:"max_us"`
}

const (
	graceTime = time.Second      // for answers that are outstanding when a job with a rate ends
	silence   = 10 * time.Second // how long to wait for the first answer, in a closed loop
	maxErrors = 10_000           // more, and the job is given up
)

// Run does a job. It is meant to have a process for itself.
func Run(j Job) (Result, error) {
	if len(j.Requests) == 0 || j.Conns < 1 {
		return Result{}, fmt.Errorf("a job needs a request and a connection")
	}
	if j.TLS && j.Close {
		return shake(j)
	}
	return runClient(j)
}

// meter takes what the watched processes use between two marks.
type meter struct {
	watch map[string][]int
	begun map[string]float64
	at    int64
}

func (m *meter) mark() (err error) {
	m.begun, err = m.read()
	m.at = nanos()
	return err
}

// since returns what was used since the mark.
func (m *meter) since() (cpu map[string]float64, seconds float64, err error) {
	seconds = float64(nanos()-m.at) / 1e9
	cpu, err = m.read()
	for name := range cpu {
		cpu[name] -= m.begun[name]
	}
	return cpu, seconds, err
}

func (m *meter) read() (map[string]float64, error) {
	all := map[string]float64{}
	for name, pids := range m.watch {
		for _, pid := range pids {
			s, err := CPUTime(pid)
			if err != nil {
				return nil, err
			}
			all[name] += s
		}
	}
	own, err := CPUTime(0)
	all["load"] = own
	return all, err
}

// CPUTime returns the seconds that all threads of a process have run, those that have ended included. pid 0 is the caller's own.
// It reads the process's CPU clock, which counts nanoseconds, where /proc/PID/stat counts ticks.
func CPUTime(pid int) (float64, error) {
	const sched = 2 // CPUCLOCK_SCHED of the process clock of pid: (^pid << 3) | 2
	clock := int32(^pid<<3 | sched)
	if pid == 0 {
		clock = unix.CLOCK_PROCESS_CPUTIME_ID
	}
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, err)
	}
	return float64(t.Nano()) / 1e9, nil
}

func (r *Result) latencies(h *hist) {
	us := func(q float64) float64 { return float64(h.quantile(q)) / 1e3 }
	r.P50us, r.P90us, r.P99us, r.MaxUs = us(.5), us(.9), us(.99), us(1)
}
