package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/skeinlb/skein/test/bench/load"
)

// stage is where the comparison happens: an origin, and the three proxies at once. Those that are not asked do nothing.
type stage struct {
	peers []*peer
	dir   string
	certs map[string]string
	cpus  []int

	mu      sync.Mutex // guards the following against a signal
	origin  *exec.Cmd
	running map[string]*running
	setting setting
	closed  bool
}

// setting is how the stage is set up.
type setting struct {
	name    string                       // by which it is known to stand already
	threads int                          // of a proxy: 1, on a processor of its own, or 2, with everything on all processors
	files   map[string]map[string]string // by peer and name
	needs   []service
}

// running is a proxy that serves.
type running struct {
	*peer
	cmd  *exec.Cmd
	dir  string
	said *bytes.Buffer
}

func newStage(skein string) (*stage, error) {
	abs, err := filepath.Abs(skein)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{abs, "/usr/sbin/haproxy", "/usr/sbin/nginx"} {
		if _, err := os.Stat(name); err != nil {
			return nil, fmt.Errorf("%w (`make bench` builds and installs what is needed)", err)
		}
	}
	s := &stage{peers: peers(abs), running: map[string]*running{}}
	if s.cpus, err = allowed(); err != nil {
		return nil, err
	}
	if s.certs, err = certificates(); err != nil {
		return nil, err
	}
	parent := "/dev/shm" // logs go to memory: a disk is not what is measured
	if s.dir, err = os.MkdirTemp(parent, "skein-bench-"); err != nil {
		if s.dir, err = os.MkdirTemp("", "skein-bench-"); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return nil, err
	}
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-sig
		s.close()
		os.Exit(130)
	}()
	return s, nil
}

// close ends all processes and removes what they wrote.
func (s *stage) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.clear()
	os.RemoveAll(s.dir)
}

func (s *stage) clear() {
	for name, r := range s.running {
		stop(r.cmd)
		delete(s.running, name)
	}
	stop(s.origin)
	s.origin = nil
}

// set makes the stage stand in a setting.
func (s *stage) set(to setting) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("interrupted")
	}
	if s.setting.name == to.name {
		return nil
	}
	s.clear()
	s.setting = to
	if err := s.startOrigin(); err != nil {
		return err
	}
	for _, p := range s.peers {
		r, err := s.startPeer(p)
		if err != nil {
			return err
		}
		s.running[p.name] = r
	}
	return nil
}

// proxyCPUs and loadCPUs are what a proxy, and all else, may run on.
func (s *stage) proxyCPUs() []int {
	if s.setting.threads > 1 {
		return s.cpus
	}
	return s.cpus[:1]
}

func (s *stage) loadCPUs() []int {
	if s.setting.threads > 1 {
		return s.cpus
	}
	return s.cpus[1:]
}

func (s *stage) startOrigin() error {
	cmd := exec.Command("/proc/self/exe", "origin", strconv.Itoa(originPort))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stderr
	if err := start(cmd, s.loadCPUs()); err != nil {
		return fmt.Errorf("start the origin: %w", err)
	}
	s.origin = cmd
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return fmt.Errorf("the origin does not serve: %w", err)
	}
	return nil
}

func (s *stage) startPeer(p *peer) (*running, error) {
	r := &running{peer: p, dir: filepath.Join(s.dir, p.name), said: &bytes.Buffer{}}
	os.RemoveAll(r.dir)
	cmd, err := p.prepare(r.dir, s.setting.files[p.name], s.certs, s.setting.threads)
	if err != nil {
		return nil, err
	}
	out, err := os.OpenFile(r.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, r.said
	if err := start(cmd, s.proxyCPUs()); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	r.cmd = cmd
	for _, service := range s.setting.needs {
		if err := answers(p.addr(service)); err != nil {
			stop(cmd)
			return nil, fmt.Errorf("%s does not serve %v: %w\n%s", p.name, service, err, r.said)
		}
	}
	return r, nil
}

// log is where the proxy writes a line per request.
func (r *running) log() string { return filepath.Join(r.dir, "access.log") }

// answers waits until something accepts there.
func answers(addr string) error {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			return err
		}
	}
}

// sample is one round of one proxy in one row.
type sample struct {
	Row   string `json:"row"`
	Conns int    `json:"connections"`
	Proxy string `json:"proxy"`
	Round int    `json:"round"`
	Kind  string `json:"kind"` // closed, or fixed for a fixed rate
	load.Result
	Rate     float64 `json:"asked_rate,omitempty"`
	Others   float64 `json:"others"` // processors that other programs used meanwhile
	Logged   uint64  `json:"logged_lines"`
	Unlogged uint64  `json:"unlogged,omitempty"` // requests that certainly have no line: dropped, or not yet written
}

func (s *sample) us() float64 { return s.CPU["proxy"] * 1e6 / float64(s.Requests) }
func (s *sample) perSecond() float64 {
	return float64(s.Requests) / s.Seconds
}

// run does a job on a proxy, which it fills in, in a process of its own.
func (s *stage) run(name string, j load.Job) (sample, error) {
	s.mu.Lock()
	r, origin := s.running[name], s.origin
	s.mu.Unlock()
	if r == nil || origin == nil {
		return sample{}, errors.New("interrupted")
	}
	pids, err := tree(r.cmd.Process.Pid)
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w\n%s", name, err, r.said)
	}
	j.Watch = map[string][]int{"proxy": pids, "origin": {origin.Process.Pid}}
	ours := func() (sum float64, err error) {
		for _, pid := range append(pids[:len(pids):len(pids)], origin.Process.Pid) {
			t, err := load.CPUTime(pid)
			if err != nil {
				return 0, err
			}
			sum += t
		}
		return sum, nil
	}
	var w watch
	if err := w.begin(); err != nil {
		return sample{}, err
	}
	before, err := ours()
	if err != nil {
		return sample{}, err
	}
	in, err := json.Marshal(j)
	if err != nil {
		return sample{}, err
	}
	var out, said bytes.Buffer
	cmd := exec.Command("/proc/self/exe", "load")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if err := start(cmd, s.loadCPUs()); err != nil {
		return sample{}, fmt.Errorf("start the load: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return sample{}, fmt.Errorf("load on %s: %w: %s\n%s", name, err, said.String(), r.said)
	}
	after, err := ours()
	if err != nil {
		return sample{}, err
	}
	got := sample{Proxy: name, Conns: j.Conns, Rate: j.Rate, Kind: "closed"}
	if j.Rate > 0 {
		got.Kind = "fixed"
	}
	if got.Others, err = w.others(after - before + (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()); err != nil {
		return sample{}, err
	}
	if err := json.Unmarshal(out.Bytes(), &got.Result); err != nil {
		return sample{}, fmt.Errorf("what the load says: %w: %q", err, out.String())
	}
	if got.Requests == 0 && got.Late == 0 && got.P99us == 0 { // at a fixed rate that is too much for it, answers may all come late
		return sample{}, fmt.Errorf("%s answered nothing (%d errors)\n%s", name, got.Errors, r.said)
	}
	if got.Logged, err = emptyLog(r.log()); err != nil {
		return sample{}, err
	}
	return got, nil
}

// logWait is how long lines are waited for.
const logWait = 500 * time.Millisecond

// awaitLines counts lines that were still on their way when a round was over, until there is one for each request.
func (s *stage) awaitLines(got *sample) error {
	s.mu.Lock()
	r := s.running[got.Proxy]
	s.mu.Unlock()
	if r == nil {
		return errors.New("interrupted")
	}
	for end := time.Now().Add(logWait); got.Logged < got.Requests && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		lines, err := emptyLog(r.log())
		if err != nil {
			return err
		}
		got.Logged += lines
	}
	return nil
}

// emptyLog counts the lines of a log and empties it: memory is not what logs are for.
func emptyLog(path string) (lines uint64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := make([]byte, 1<<20)
	for {
		n, err := f.Read(b)
		lines += uint64(bytes.Count(b[:n], []byte("\n")))
		if err == io.EOF {
			return lines, f.Truncate(0)
		}
		if err != nil {
			return lines, err
		}
	}
}
