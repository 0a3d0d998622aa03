package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/skeinlb/skein/api/client"
	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/fleet"
)

// nobody runs PostgreSQL, which refuses to run as root.
const nobody = 65534

// TestRealPeersSeeTheFailover puts nginx behind the HTTP frontend and PostgreSQL behind the TCP frontend, loads the address with
// wrk and writes rows through psql while the holder is killed. Every row that psql was told is committed must be there.
func TestRealPeersSeeTheFailover(t *testing.T) {
	if testing.Short() {
		t.Skip("a whole cluster: not with -short")
	}
	tools := find(t, "nginx", "wrk", "psql", "initdb", "postgres")
	if m, err := os.ReadFile("/proc/self/uid_map"); err != nil || len(strings.Fields(string(m))) != 3 || strings.Fields(string(m))[2] == "1" {
		t.Skipf("PostgreSQL refuses to run as root, and this user namespace has no other user: run as root (uid_map %q, %v)", m, err)
	}
	s := newStageWith(t, func(s *stage, h *lab.Host) netip.AddrPort { return s.nginx(h, tools["nginx"]) },
		func(s *stage, h *lab.Host) netip.AddrPort { return s.postgres(h, tools) })
	sql := func(ctx context.Context, text string) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		out, err := s.client.Output(ctx, tools["psql"], "-X", "-q", "-t", "-A", "-h", vip.String(), "-p", fmt.Sprint(tcpPort),
			"-U", "nobody", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-c", text)
		return strings.TrimSpace(out), err
	}
	_, err := sql(s.ctx, "create table rows (n int)")
	s.must(err)

	var told, refused atomic.Int64
	s.background("psql", func(ctx context.Context) error {
		for ctx.Err() == nil {
			if _, err := sql(ctx, "insert into rows values (1)"); err == nil {
				told.Add(1)
			} else {
				refused.Add(1)
			}
		}
		return nil
	})
	s.until("rows are written", func() bool { return told.Load() > 3 })

	wrk := make(chan string, 1)
	s.background("wrk", func(ctx context.Context) error {
		out, err := s.client.Output(ctx, tools["wrk"], "-t1", "-c8", "-d5s", "--timeout", "1s", fmt.Sprintf("http://%v/", vip))
		wrk <- out
		return err
	})
	n := s.holding()
	served := s.answered(n)
	s.until("wrk is under way", func() bool { return s.answered(n) > served+1000 })
	since := time.Now()
	s.must(n.Kill())
	s.until("another node holds the address", func() bool { h := s.holder(); return h != "" && h != n.Name })
	o := s.settled(since)
	out := <-wrk
	if !strings.Contains(out, "Requests/sec:") {
		t.Errorf("wrk did not come to an end:\n%s", out)
	}
	rows := told.Load()
	s.until("rows are written again", func() bool { return told.Load() > rows+3 })
	t.Logf("outage %v, %d of %d requests failed; %d rows written, %d not\n%s", o.Length(), o.Failed, o.Requests, told.Load(), refused.Load(), out)

	rows = told.Load()
	got, err := sql(s.ctx, "select count(*) from rows")
	s.must(err)
	var count int64
	if _, err := fmt.Sscan(got, &count); err != nil || count < rows {
		t.Errorf("the table has %q rows, want the %d that were acknowledged at least", got, rows)
	}
	s.restart(n)
	s.whole()
	if k, d := s.watch.TwoHolders(since); k > 0 {
		t.Errorf("two nodes answered for the address in %d samples over %v", k, d)
	}
}

// answered is how many requests the servers have been sent, as a node has heard from all.
func (s *stage) answered(n *fleet.Node) (sum uint64) {
	s.t.Helper()
	c := client.New(n.Socket())
	defer c.Close()
	list, err := c.Servers(s.ctx)
	s.must(err)
	for _, srv := range list.Servers {
		sum += srv.Requests
	}
	return sum
}

// find returns the paths of programs, also of those that Debian keeps out of PATH.
func find(t *testing.T, names ...string) map[string]string {
	t.Helper()
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	dirs = append(dirs, "/usr/sbin")
	paths, missing := map[string]string{}, []string(nil)
	for _, n := range names {
		path, err := exec.LookPath(n)
		for _, d := range dirs {
			if p := filepath.Join(d, n); err != nil {
				path, err = exec.LookPath(p)
			}
		}
		if err != nil {
			missing = append(missing, n)
		}
		paths[n] = path
	}
	if missing != nil {
		t.Skipf("not installed: %s; scripts/packages installs them", strings.Join(missing, ", "))
	}
	return paths
}

// nginx starts nginx on h, in one process, with everything it writes below the stage's directory.
func (s *stage) nginx(h *lab.Host, path string) netip.AddrPort {
	s.t.Helper()
	dir := filepath.Join(s.dir, h.Name)
	s.must(os.Mkdir(dir, 0o700))
	addr := netip.AddrPortFrom(h.Addr, webPort)
	conf := fmt.Sprintf(`daemon off;
master_process off;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  server {
    listen %[2]s;
    add_header Server-Name %[3]s always;
    location / { return 200 "%[3]s\n"; }
  }
}
`, dir, addr, h.Name)
	file := filepath.Join(dir, "nginx.conf")
	s.must(os.WriteFile(file, []byte(conf), 0o600))
	_, err := h.Start(lab.Command(path, "-p", dir, "-c", file, "-e", filepath.Join(dir, "error.log")))
	s.must(err)
	return addr
}

// postgres starts PostgreSQL on h, as nobody, and waits until it takes connections.
func (s *stage) postgres(h *lab.Host, tools map[string]string) netip.AddrPort {
	s.t.Helper()
	dir, err := os.MkdirTemp("", "skein-lab-pg-") // the stage's directory is closed to nobody
	s.must(err)
	s.t.Cleanup(func() { os.RemoveAll(dir) })
	s.must(os.Chown(dir, nobody, nobody))
	data := filepath.Join(dir, "data")
	as := func(name string, args ...string) *exec.Cmd {
		cmd := lab.Command(tools[name], args...)
		cmd.Dir = dir
		cmd.Env = []string{"LC_ALL=C", "HOME=" + dir, "PATH=" + os.Getenv("PATH")}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		return cmd
	}
	p, err := h.Start(as("initdb", "-D", data, "-U", "nobody", "-A", "trust", "--no-sync"))
	s.must(err)
	s.must(p.Err())
	hba, err := os.OpenFile(filepath.Join(data, "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	s.must(err)
	_, err = fmt.Fprintf(hba, "host all all %v trust\n", lab.Subnet)
	s.must(err)
	s.must(hba.Close())
	addr := netip.AddrPortFrom(h.Addr, tcpPort)
	_, err = h.Start(as("postgres", "-D", data, "-h", h.Addr.String(), "-p", fmt.Sprint(tcpPort), "-k", dir,
		"-c", "fsync=off", "-c", "shared_buffers=16MB"))
	s.must(err)
	s.until("PostgreSQL takes connections", func() bool {
		out, err := h.Output(s.ctx, tools["psql"], "-X", "-t", "-A", "-h", h.Addr.String(), "-p", fmt.Sprint(tcpPort), "-U", "nobody", "-d", "postgres", "-c", "select 7")
		return err == nil && strings.TrimSpace(out) == "7"
	})
	return addr
}
