package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	portServer = 18080
	portHTTP   = 18081 // of the proxy under test
	portTCP    = 18082
)

// procs are the processes that were started, so that all of them end.
type procs struct {
	mu   sync.Mutex
	cmds []*exec.Cmd
}

// start runs a command pinned to a CPU.
func (p *procs) start(cpu int, name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command("taskset", append([]string{"-c", strconv.Itoa(cpu), name}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.mu.Lock()
	p.cmds = append(p.cmds, cmd)
	p.mu.Unlock()
	return cmd, nil
}

// stop kills what start started, each with its process group, and waits for it.
func (p *procs) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.cmds {
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		c.Wait()
	}
	p.cmds = nil
}

// proxy is one of the programs compared.
type proxy struct {
	name string
	args []string
}

func proxies(dir, bin string) ([]proxy, error) {
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			panic(err) // a directory that we made a moment ago
		}
		return path
	}
	abs, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(abs); err != nil {
		return nil, fmt.Errorf("%w; build it first: make build", err)
	}
	haproxy := write("haproxy.cfg", fmt.Sprintf(`
global
    nbthread 1
    maxconn 4000
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
    timeout http-request 10s
    option splice-auto
    http-reuse always
frontend web
    bind 127.0.0.1:%d defer-accept
    option forwardfor
    default_backend s
backend s
    server s1 127.0.0.1:%d check inter 2s
frontend t
    mode tcp
    bind 127.0.0.1:%d
    default_backend ts
backend ts
    mode tcp
    option splice-response
    server s1 127.0.0.1:%d
`, portHTTP, portServer, portTCP, portServer))
	nginx := write("nginx-proxy.conf", fmt.Sprintf(`
worker_processes 1;
daemon off;
master_process off;
pid %[1]s/nginx-proxy.pid;
error_log stderr crit;
events { worker_connections 4096; }
http {
    access_log off;
    upstream s { server 127.0.0.1:%[2]d; keepalive 256; keepalive_requests 100000000; }
    server {
        listen 127.0.0.1:%[3]d reuseport backlog=4096;
        keepalive_requests 100000000;
        location / {
            proxy_pass http://s;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_buffering on;
            proxy_max_temp_file_size 0;
        }
    }
}
stream {
    server { listen 127.0.0.1:%[4]d; proxy_pass 127.0.0.1:%[2]d; }
}
`, dir, portServer, portHTTP, portTCP))
	// Debian's nginx-light has the stream module as a package of its own; without it, nginx has no TCP row.
	if ok := exec.Command("/usr/sbin/nginx", "-t", "-c", nginx).Run(); ok != nil {
		text, _ := os.ReadFile(nginx)
		http, _, _ := strings.Cut(string(text), "stream {")
		if mod := "/usr/lib/nginx/modules/ngx_stream_module.so"; exists(mod) {
			write("nginx-proxy.conf", "load_module "+mod+";\n"+string(text))
		} else {
			write("nginx-proxy.conf", http)
		}
	}
	skein := write("skein.hcl", fmt.Sprintf(`
frontend "web" {
  bind    = ["127.0.0.1"]
  http    = %d
  backend = "s"
}
backend "s" {
  check "http" {
    path     = "/b128"
    interval = "2s"
  }
  server "s1" { address = "127.0.0.1:%d" }
}
frontend "t" {
  bind    = ["127.0.0.1"]
  tcp     = %d
  backend = "ts"
}
backend "ts" {
  server "s1" { address = "127.0.0.1:%d" }
}
`, portHTTP, portServer, portTCP, portServer))
	return []proxy{
		{"skein", []string{abs, "run", skein}},
		{"haproxy", []string{"/usr/sbin/haproxy", "-db", "-f", haproxy}},
		{"nginx", []string{"/usr/sbin/nginx", "-c", nginx}},
	}, nil
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func startServer(p *procs, dir string) error {
	for name, n := range map[string]int{"b128": 128, "b1k": 1024, "b64k": 64 << 10, "b1m": 1 << 20} {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte("x"), n), 0o644); err != nil {
			return err
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	conf := filepath.Join(dir, "server.conf")
	text := fmt.Sprintf(`
worker_processes 1;
daemon off;
master_process off;
pid %[1]s/server.pid;
error_log stderr crit;
events { worker_connections 8192; }
http {
    access_log off;
    sendfile on;
    open_file_cache max=100;
    server { listen 127.0.0.1:%[2]d reuseport backlog=4096; root %[1]s; keepalive_requests 100000000; default_type text/plain; }
}
`, dir, portServer)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return err
	}
	if _, err := p.start(1, "/usr/sbin/nginx", "-c", conf); err != nil {
		return err
	}
	return answers(portServer)
}

// answers waits until something accepts on the port.
func answers(port int) error {
	end := time.Now().Add(10 * time.Second)
	for {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			return fmt.Errorf("nothing listens on port %d: %w", port, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

var errNoRow = errors.New("this proxy was built without what the load needs")

// measure runs one proxy under one load and takes the CPU time that it spent meanwhile.
func measure(p proxy, l load, round, seconds int) (Sample, error) {
	var own procs
	defer own.stop()
	cmd, err := own.start(0, p.args[0], p.args[1:]...)
	if err != nil {
		return Sample{}, err
	}
	if err := answers(l.Port); err != nil {
		if p.name == "nginx" && l.Port == portTCP {
			return Sample{}, errNoRow
		}
		return Sample{}, err
	}
	if _, err := wrk(l, 1); err != nil { // warms caches, connections and pools
		return Sample{}, err
	}
	before, err := cpu(cmd.Process.Pid)
	if err != nil {
		return Sample{}, err
	}
	s, err := wrk(l, seconds)
	if err != nil {
		return Sample{}, err
	}
	after, err := cpu(cmd.Process.Pid)
	if err != nil {
		return Sample{}, err
	}
	s.Load, s.Conns, s.Proxy, s.Round, s.CPU = l.Name, l.Conns, p.name, round, after-before
	return s, nil
}

var (
	reRequests = regexp.MustCompile(`(\d+) requests in ([\d.]+)(s|m)`)
	reLatency  = regexp.MustCompile(`(?m)^\s+(50|99)%\s+([\d.]+)(us|ms|s)`)
	reErrors   = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
	reStatus   = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
)

func wrk(l load, seconds int) (Sample, error) {
	args := []string{"-c", "1", "wrk", "-t1", "-c" + strconv.Itoa(l.Conns), "-d" + strconv.Itoa(seconds) + "s", "--latency"}
	if l.Close {
		args = append(args, "-H", "Connection: close")
	}
	out, err := exec.Command("taskset", append(args, fmt.Sprintf("http://127.0.0.1:%d%s", l.Port, l.Path))...).CombinedOutput()
	if err != nil {
		return Sample{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	m := reRequests.FindSubmatch(out)
	if m == nil {
		return Sample{}, fmt.Errorf("wrk said: %s", out)
	}
	var s Sample
	s.Requests, _ = strconv.ParseUint(string(m[1]), 10, 64)
	s.Seconds, _ = strconv.ParseFloat(string(m[2]), 64)
	for _, m := range reLatency.FindAllSubmatch(out, -1) {
		v, _ := strconv.ParseFloat(string(m[2]), 64)
		v *= map[string]float64{"us": 1, "ms": 1e3, "s": 1e6}[string(m[3])]
		if string(m[1]) == "50" {
			s.P50us = v
		} else {
			s.P99us = v
		}
	}
	if m := reErrors.FindSubmatch(out); m != nil {
		for _, x := range m[1:] {
			n, _ := strconv.ParseUint(string(x), 10, 64)
			s.SockErrs += n
		}
	}
	if m := reStatus.FindSubmatch(out); m != nil {
		s.BadStatus, _ = strconv.ParseUint(string(m[1]), 10, 64)
	}
	if s.Requests == 0 || s.BadStatus > 0 {
		return s, fmt.Errorf("no clean answers: %s", out)
	}
	return s, nil
}

// cpu returns the CPU seconds that a process and its threads have used. taskset has become the proxy by exec, so the pid is right.
func cpu(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		return 0, err
	}
	var sum float64
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("threads of %d: %w %s", pid, err, b)
	}
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			continue // a thread that ended
		}
		ns, _ := strconv.ParseFloat(strings.Fields(string(b))[0], 64)
		sum += ns / 1e9
	}
	return sum, nil
}

func kernel() string {
	b, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return "Linux " + strings.TrimSpace(string(b))
}

func firstLine(name string, args ...string) string {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return name
	}
	line, _ := bufio.NewReader(bytes.NewReader(out)).ReadString('\n')
	return strings.TrimSpace(line)
}
