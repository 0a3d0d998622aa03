package lab

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/fleet"
)

// TestMigrationFromKeepalived takes a pair of hosts that keepalived runs over to skein, host by host, as docs/migrating-from-keepalived.md
// says: skein joins the VRRP group as a backup where the second keepalived was, the first keepalived stops, and in the end the group is
// left. The client's outage is what VRRP itself costs; the last step costs nothing. On the way keepalived comes back and takes the
// address, as its priority says, and loses its power.
func TestMigrationFromKeepalived(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes on a network of their own: not with -short")
	}
	path := find(t, "keepalived")["keepalived"]
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprintf("version %d", version), func(t *testing.T) { migrate(t, path, version) })
	}
}

func migrate(t *testing.T, path string, version int) {
	s := newWorld(t)
	s.fleet = &fleet.Fleet{World: s.world, Binary: *binary, Dir: s.dir}
	s.logsOnFailure()
	old := s.host("old")
	_, err := s.fleet.Add("lb1")
	s.must(err)
	ka := s.keepalived(old, path, version, 150, vip.String()+"/24")
	serveEverywhere(s, old)
	s.bootOn(webOf, echoOf)
	s.until("keepalived holds the address", func() bool { return s.holder() == "old" })
	s.load = &lab.Load{Target: netip.AddrPortFrom(vip, 80)}
	s.control = &lab.Load{Target: s.servers[0].addr, KeepAlive: true, Every: 10 * time.Millisecond, Deadline: 10 * time.Second}
	s.start = time.Now()
	for _, l := range []*lab.Load{s.load, s.control} {
		s.background("the client", func(ctx context.Context) error { return l.Run(ctx, s.client) })
	}
	s.settled(s.start)
	lb1 := s.fleet.Nodes()[0]
	ctx, cancel := context.WithTimeout(s.ctx, 3*patience)
	defer cancel()
	explains := func(want string) func() bool {
		return func() bool {
			out, err := lb1.Skein(ctx, "vip", "explain", "public")
			return err == nil && strings.Contains(out, want)
		}
	}
	step := func(what string, since time.Time, holder string) {
		t.Helper()
		o := s.settled(since)
		k, d := s.watch.TwoHolders(since)
		t.Logf("%s: outage %v, %d of %d requests failed", what, o.Length().Round(time.Millisecond), o.Failed, o.Requests)
		if got := s.holder(); got != holder {
			t.Errorf("%s: %s answers for the address, want %s", what, got, holder)
		}
		if k > 1 {
			t.Errorf("%s: two hosts answered in %d samples over %v", what, k, d)
		}
	}

	interval := "1s"
	if version == 3 {
		interval = "100ms"
	}
	text := s.grouped(version, interval)
	since := time.Now()
	s.must(lb1.Apply(ctx, text, "join the group"))
	s.until("skein is a backup that hears keepalived", explains(old.Addr.String()+" is active"))
	step("skein joins", since, "old")

	since = time.Now()
	s.must(unix.Kill(ka.Pid, unix.SIGTERM))
	s.until("skein has the address", func() bool { return s.holder() == "lb1" })
	s.until("skein is active", explains("VRRP router 51: active"))
	step("keepalived stops", since, "lb1")

	since = time.Now()
	s.keepalived(old, path, version, 150, vip.String()+"/24")
	s.until("keepalived has it back, for its priority is higher", func() bool { return s.holder() == "old" })
	s.until("skein is a backup again", explains("is active and has the address"))
	step("keepalived comes back", since, "old")

	since = time.Now()
	s.must(old.PowerOff())
	s.until("skein has the address", func() bool { return s.holder() == "lb1" })
	step("keepalived's host loses its power", since, "lb1")

	since = time.Now()
	s.must(lb1.Apply(ctx, s.config(), "leave the group"))
	s.until("the address is held without a group", func() bool { return !explains("VRRP router")() })
	step("skein leaves the group", since, "lb1")
	if o := s.load.Record.Outage(since); o.Failed > 0 {
		t.Errorf("leaving the group cost %d requests", o.Failed)
	}
}

// TestVRRPForIPv6 has keepalived active for an IPv6 address, skein as its backup, and stops keepalived.
func TestVRRPForIPv6(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes on a network of their own: not with -short")
	}
	path := find(t, "keepalived")["keepalived"]
	s := newWorld(t)
	s.fleet = &fleet.Fleet{World: s.world, Binary: *binary, Dir: s.dir}
	s.logsOnFailure()
	old := s.host("old")
	lb1, err := s.fleet.Add("lb1")
	s.must(err)
	ka := s.keepalived(old, path, 3, 150, vip6.String()+"/64")
	s.bootOn(webOf, echoOf)
	watch := &lab.ARPWatch{Addr: vip6}
	watcher := s.host("watcher6")
	s.background("the watcher of IPv6", func(ctx context.Context) error { return watch.Run(ctx, watcher) })
	held := func(by string) func() bool { return func() bool { return watch.Holder(s.world) == by } }
	s.until("keepalived holds the address", held("old"))
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	since := time.Now()
	s.must(lb1.Apply(ctx, fmt.Sprintf(`vip "public" {
  address = "%v/64"
  vrrp {
    router_id = 51
    interval  = "100ms"
  }
}
frontend "f" {
  vip     = "public"
  http    = 80
  backend = "b"
}
backend "b" {
  server "s1" { address = "%v" }
}
`, vip6, s.servers[0].addr), "join the group"))
	s.until("skein is a backup that hears keepalived", func() bool {
		out, err := lb1.Skein(ctx, "vip", "explain", "public")
		return err == nil && strings.Contains(out, "is active and has the address")
	})
	if !held("old")() {
		t.Error("keepalived does not answer for the address any more")
	}
	s.must(unix.Kill(ka.Pid, unix.SIGTERM))
	s.until("skein has the address", held("lb1"))
	if k, d := watch.TwoHolders(since); k > 1 {
		t.Errorf("two hosts answered in %d samples over %v", k, d)
	}
}

// grouped is the configuration of the stage with its address in a VRRP group, where skein has priority 100.
func (s *stage) grouped(version int, interval string) string {
	vrrp := fmt.Sprintf("{\n  address = \"%v/24\"\n  vrrp {\n    router_id = 51\n    version = %d\n    interval = %q\n    priority = 100\n  }\n}", vip, version, interval)
	return strings.Replace(s.config(), fmt.Sprintf("{ address = \"%v/24\" }", vip), vrrp, 1)
}

// keepalived starts keepalived on h, with the usual interval of that version, and returns when it takes part.
func (s *stage) keepalived(h *lab.Host, path string, version, priority int, address string) *lab.Process {
	interval := "1"
	if version == 3 {
		interval = "0.1"
	}
	return s.keepalivedEvery(interval, h, path, version, priority, address)
}

func (s *stage) keepalivedEvery(interval string, h *lab.Host, path string, version, priority int, address string) *lab.Process {
	s.t.Helper()
	dir, err := os.MkdirTemp(s.dir, "keepalived-")
	s.must(err)
	conf := fmt.Sprintf(`global_defs {
  vrrp_version %d
}
vrrp_instance shop {
  state BACKUP
  interface eth0
  virtual_router_id 51
  priority %d
  advert_int %s
  virtual_ipaddress {
    %s
  }
}
`, version, priority, interval, address)
	file := filepath.Join(dir, "keepalived.conf")
	s.must(os.WriteFile(file, []byte(conf), 0o644))
	pid := filepath.Join(dir, "vrrp.pid")
	p, err := h.Start(lab.Command(path, "-n", "-l", "-P", "-f", file, "-p", filepath.Join(dir, "pid"), "-r", pid))
	s.must(err)
	s.until("keepalived runs", func() bool {
		_, err := os.Stat(pid)
		return err == nil
	})
	return p
}

// serveEverywhere answers every request on port 80 of any address of h, as the HAProxy beside a keepalived would.
func serveEverywhere(s *stage, h *lab.Host) {
	s.t.Helper()
	l, err := h.Listen("tcp", "0.0.0.0:80")
	s.must(err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, h.Name) }), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }() // ends with the test
	s.t.Cleanup(func() { server.Close(); <-done })
}
