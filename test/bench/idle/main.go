// Command idle measures what an idle keep-alive connection costs a proxy in memory: it opens many, sends one request on each, and
// divides the growth of the proxy's resident memory by their number. It does so for skein and, where they are installed, for
// HAProxy and nginx. It is not a test: nothing here passes or fails.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	portServer = 18090
	portProxy  = 18091
	warm       = 200 // connections before the first look: what a proxy has for all of them is not counted
)

func main() {
	conns := flag.Int("conns", 15000, "idle connections")
	bin := flag.String("skein", "bin/skein", "the binary to measure")
	flag.Parse()
	if err := run(*conns, *bin); err != nil {
		fmt.Fprintln(os.Stderr, "idle:", err)
		os.Exit(1)
	}
}

func run(conns int, bin string) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("ask for the limit of descriptors: %w", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise the limit of descriptors: %w", err)
	}
	if uint64(conns)+1000 > limit.Max {
		return fmt.Errorf("%d connections do not fit into the limit of %d descriptors (ulimit -Hn)", conns, limit.Max)
	}
	dir, err := os.MkdirTemp("", "skein-idle-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", portServer))
	if err != nil {
		return err
	}
	defer server.Close()
	go serve(server)
	proxies, err := proxies(dir, bin)
	if err != nil {
		return err
	}
	fmt.Printf("%d idle keep-alive connections, resident memory:\n", conns)
	for _, p := range proxies {
		if _, err := exec.LookPath(p.args[0]); err != nil {
			fmt.Printf("  %-8s is not installed\n", p.name)
			continue
		}
		before, after, err := measure(p, conns)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Printf("  %-8s %8d -> %8d KiB  %6.2f KiB each\n", p.name, before, after, float64(after-before)/float64(conns-warm))
	}
	return nil
}

// serve answers every request on every connection with two bytes.
func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			r := bufio.NewReader(c)
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == "\r\n" {
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			}
		}()
	}
}

// proxy is one of the programs compared.
type proxy struct {
	name string
	args []string
}

func proxies(dir, bin string) ([]proxy, error) {
	files := map[string]string{
		"skein.hcl": fmt.Sprintf("frontend \"web\" {\n  bind = [\"127.0.0.1\"]\n  http = %d\n  backend = \"s\"\n"+
			"  timeouts {\n    idle = \"10m\"\n  }\n}\nbackend \"s\" {\n  server \"s1\" { address = \"127.0.0.1:%d\" }\n}\n", portProxy, portServer),
		"haproxy.cfg": fmt.Sprintf("global\n  nbthread 2\n  maxconn 17000\n  no strict-limits\ndefaults\n  mode http\n  timeout client 600s\n  timeout server 600s\n"+
			"  timeout connect 5s\n  timeout http-keep-alive 600s\n  http-reuse always\nfrontend web\n  bind 127.0.0.1:%d\n"+
			"  option forwardfor\n  default_backend s\nbackend s\n  server s1 127.0.0.1:%d\n", portProxy, portServer),
		"nginx.conf": fmt.Sprintf("worker_processes 1;\ndaemon off;\nmaster_process off;\npid %[1]s/nginx.pid;\nerror_log stderr crit;\n"+
			"events { worker_connections 18000; }\nhttp {\n  access_log off;\n  keepalive_timeout 600s;\n"+
			"  upstream s { server 127.0.0.1:%[2]d; keepalive 16; }\n  server {\n    listen 127.0.0.1:%[3]d backlog=4096;\n"+
			"    location / { proxy_pass http://s; proxy_http_version 1.1; proxy_set_header Connection \"\"; }\n  }\n}\n", dir, portServer, portProxy),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	abs, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(abs); err != nil {
		return nil, fmt.Errorf("%w; build it first: make build", err)
	}
	return []proxy{
		{"skein", []string{abs, "run", filepath.Join(dir, "skein.hcl")}},
		{"haproxy", []string{"/usr/sbin/haproxy", "-db", "-f", filepath.Join(dir, "haproxy.cfg")}},
		{"nginx", []string{"/usr/sbin/nginx", "-c", filepath.Join(dir, "nginx.conf")}},
	}, nil
}

// measure returns a proxy's resident memory in KiB with few connections and with all of them.
func measure(p proxy, conns int) (before, after int64, err error) {
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for end := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", portProxy))
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			return 0, 0, err
		}
		time.Sleep(20 * time.Millisecond)
	}
	b := make([]byte, 4096)
	for i := range conns {
		if i == warm {
			if before, err = resident(cmd.Process.Pid); err != nil {
				return 0, 0, err
			}
		}
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", portProxy))
		if err != nil {
			return 0, 0, fmt.Errorf("connection %d: %w", i, err)
		}
		open = append(open, c)
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: idle\r\nAccept: */*\r\n\r\n")
		n, err := c.Read(b)
		if err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 200") {
			return 0, 0, fmt.Errorf("request %d: %q, %w", i, b[:n], err)
		}
	}
	time.Sleep(2 * time.Second) // what is given back late counts as given back
	after, err = resident(cmd.Process.Pid)
	return before, after, err
}

// resident returns a process's resident memory in KiB.
func resident(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b), "VmRSS:")
	fields := strings.Fields(rest)
	if !ok || len(fields) == 0 {
		return 0, errors.New("its status does not say how much memory it has")
	}
	return strconv.ParseInt(fields[0], 10, 64)
}
