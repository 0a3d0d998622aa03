package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/stage"
)

// profile is a way in which people configure keepalived.
type profile struct {
	version  int
	interval string // of adverts, in seconds
	every    int    // seconds between two checks of haproxy
	http     bool   // it must answer; else its process must exist
}

var (
	// usual is what the tutorials have: a check whether haproxy's process is there, every two seconds.
	usual = profile{version: 2, interval: "1", every: 2}
	// tuned is as fast as VRRP went without false alarms on a busy machine, and asks haproxy every second.
	tuned = profile{version: 3, interval: "0.1", every: 1, http: true}
)

// Priorities. The check that succeeds adds its weight: 103 and 102, or 101 with a dead haproxy.
const (
	firstPriority, secondPriority, checkWeight = 101, 100, 2
	leavingPriority                            = 50
)

// Where Debian has them, out of an ordinary user's path.
const (
	keepalivedPath = "/usr/sbin/keepalived"
	haproxyPath    = "/usr/sbin/haproxy"
)

// pair is keepalived and haproxy on two hosts.
type pair struct {
	s       *stage.Stage
	dir     string
	profile profile
	hosts   []*lab.Host

	mu sync.Mutex
	// mu guards the following.
	haproxy, keepalived map[string]*lab.Process
}

func newPair(s *stage.Stage, dir string, p profile) (*pair, error) {
	c := &pair{s: s, dir: dir, profile: p, haproxy: map[string]*lab.Process{}, keepalived: map[string]*lab.Process{}}
	for _, name := range []string{"lb1", "lb2"} {
		h, err := s.World.AddHost(name)
		if err != nil {
			return nil, err
		}
		c.hosts = append(c.hosts, h)
	}
	return c, nil
}

func (c *pair) path(h *lab.Host, name string) string { return filepath.Join(c.dir, h.Name+"-"+name) }

// write writes the configurations of a host.
func (c *pair) write(h *lab.Host, priority int) error {
	check := fmt.Sprintf("#!/bin/sh\nkill -0 \"$(cat %s)\"\n", c.path(h, "haproxy.pid"))
	if c.profile.http {
		check = "#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/8404 || exit 1\n" +
			"printf 'GET /up HTTP/1.0\\r\\n\\r\\n' >&3\nread -r -t 1 -u 3 line && [[ $line == *\" 200 \"* ]]\n"
	}
	haproxy := fmt.Sprintf(`global
  maxconn 4000
  hard-stop-after 2s
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option redispatch
frontend shop
  bind %v:%d
  default_backend shop
frontend up
  bind 127.0.0.1:8404
  monitor-uri /up
backend shop
  balance leastconn
  option httpchk GET /healthz
  default-server check inter 500ms
`, stage.VIP, stage.FrontPort)
	for _, w := range c.s.Servers {
		haproxy += fmt.Sprintf("  server %s %v\n", w.Name, w.Addr)
	}
	state := "BACKUP"
	if h == c.hosts[0] {
		state = "MASTER"
	}
	authentication := "" // which VRRPv3 has not
	if c.profile.version == 2 {
		authentication = "  authentication {\n    auth_type PASS\n    auth_pass lab12345\n  }\n"
	}
	keepalived := fmt.Sprintf(`global_defs {
  router_id %s
  vrrp_version %d
  enable_script_security
  script_user root
}
vrrp_script haproxy {
  script "%s"
  interval %d
  weight %d
}
vrrp_instance public {
  state %s
  interface %s
  virtual_router_id 51
  priority %d
  advert_int %s
%s  virtual_ipaddress {
    %v/24
  }
  track_script {
    haproxy
  }
}
`, h.Name, c.profile.version, c.path(h, "check"), c.profile.every, checkWeight, state, lab.Interface, priority, c.profile.interval, authentication, stage.VIP)
	return errors.Join(
		os.WriteFile(c.path(h, "check"), []byte(check), 0o700),
		os.WriteFile(c.path(h, "haproxy.cfg"), []byte(haproxy), 0o600),
		os.WriteFile(c.path(h, "keepalived.conf"), []byte(keepalived), 0o600)) // keepalived refuses what can be executed
}

func (c *pair) priority(h *lab.Host) int {
	if h == c.hosts[0] {
		return firstPriority
	}
	return secondPriority
}

func (c *pair) boot(ctx context.Context) error {
	for _, h := range c.hosts {
		if err := c.start(ctx, h); err != nil {
			return err
		}
	}
	return c.whole(ctx)
}

// start starts haproxy and keepalived on a host, where they do not run.
func (c *pair) start(_ context.Context, h *lab.Host) error {
	if err := h.Sysctl("net.ipv4.ip_nonlocal_bind", "1"); err != nil { // so that haproxy listens on the address of the other
		return err
	}
	if err := c.write(h, c.priority(h)); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !alive(c.haproxy[h.Name]) {
		p, err := c.launch(h, "haproxy", lab.Command(haproxyPath, "-db", "-f", c.path(h, "haproxy.cfg")))
		if err != nil {
			return err
		}
		c.haproxy[h.Name] = p
		if err := os.WriteFile(c.path(h, "haproxy.pid"), fmt.Appendln(nil, p.Pid), 0o600); err != nil {
			return err
		}
	}
	if !alive(c.keepalived[h.Name]) {
		// After a SIGKILL the files stay, and the number may be another's by now.
		for _, name := range []string{"keepalived.pid", "vrrp.pid"} {
			if err := os.Remove(c.path(h, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		p, err := c.launch(h, "keepalived", lab.Command(keepalivedPath, "--dont-fork", "--log-console", "--vrrp",
			"--use-file", c.path(h, "keepalived.conf"), "--pid", c.path(h, "keepalived.pid"), "--vrrp_pid", c.path(h, "vrrp.pid")))
		if err != nil {
			return err
		}
		c.keepalived[h.Name] = p
	}
	return nil
}

func alive(p *lab.Process) bool {
	if p == nil {
		return false
	}
	select {
	case <-p.Done():
		return false
	default:
		return true
	}
}

func (c *pair) launch(h *lab.Host, name string, cmd *exec.Cmd) (*lab.Process, error) {
	log, err := os.OpenFile(c.path(h, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the program has its own
	cmd.Stdout, cmd.Stderr = log, log
	return h.Start(cmd)
}

// whole waits until the first host holds the address and the client is served by it. The second has heard it then.
func (c *pair) whole(ctx context.Context) error {
	var since time.Time
	err := stage.Until(ctx, func() bool {
		if c.s.Holder() != c.hosts[0].Name || c.s.Held(time.Now().Add(-300*time.Millisecond)).Two > 0 {
			since = time.Time{}
			return false
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) > time.Second
	})
	if err != nil {
		return fmt.Errorf("wait until %s holds the address alone: %w", c.hosts[0], err)
	}
	return nil
}

func versionOfPair(options) (version, error) {
	var lines []string
	for _, v := range [][]string{{keepalivedPath, "--version"}, {haproxyPath, "-v"}} {
		out, err := exec.Command(v[0], v[1:]...).CombinedOutput()
		if err != nil {
			return version{}, fmt.Errorf("%w; scripts/packages keepalived haproxy installs it", err)
		}
		first, _, _ := strings.Cut(string(out), "\n")
		first, _, _ = strings.Cut(first, " (")
		first, _, _ = strings.Cut(first, " 20")
		lines = append(lines, first)
	}
	return version{Name: strings.Join(lines, ", ")}, nil
}

func (c *pair) balancers() []*lab.Host { return c.hosts }

func (c *pair) voters() []*lab.Host { return c.hosts }

func (c *pair) proxy(h *lab.Host) *lab.Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.haproxy[h.Name]
}

// loop is one of haproxy's threads; which one makes no difference.
func (c *pair) loop(h *lab.Host) (int, error) {
	p := c.proxy(h)
	threads, err := p.Threads()
	if err != nil {
		return 0, err
	}
	for tid := range threads {
		if tid != p.Pid {
			return tid, nil
		}
	}
	return p.Pid, nil
}

// stop ends keepalived, and then lets haproxy finish what it has.
func (c *pair) stop(_ context.Context, h *lab.Host) error {
	c.mu.Lock()
	keepalived, haproxy := c.keepalived[h.Name], c.haproxy[h.Name]
	c.mu.Unlock()
	if err := keepalived.Stop(bootPatience); err != nil {
		return err
	}
	if err := haproxy.Signal(unix.SIGUSR1); err != nil {
		return err
	}
	return nil
}

// move takes the host's priority away and has keepalived read it.
func (c *pair) move(_ context.Context, h *lab.Host) error { return c.reload(h, leavingPriority) }

func (c *pair) unmove(_ context.Context, h *lab.Host) error { return c.reload(h, c.priority(h)) }

func (c *pair) reload(h *lab.Host, priority int) error {
	if err := c.write(h, priority); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keepalived[h.Name].Signal(unix.SIGHUP)
}

func (c *pair) logs() string {
	var b strings.Builder
	for _, h := range c.hosts {
		for _, name := range []string{"keepalived.log", "haproxy.log"} {
			text, _ := os.ReadFile(c.path(h, name))
			fmt.Fprintf(&b, "--- the end of %s's %s\n%s\n", h, name, text[max(0, len(text)-3000):])
		}
	}
	return b.String()
}

var _ contender = (*pair)(nil)
