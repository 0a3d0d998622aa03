package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/api/client"
	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/fleet"
)

// Ports of the tests that change configurations.
const (
	directPort = 8000
	fixedPort  = 5432
	linesPort  = 7001
	extraPort  = 8100 // and the next ones
)

// reloadSeed makes the same changes each time; which request meets which of them is chance enough.
const reloadSeed = 7

// TestChangesUnderLoad changes the configuration again and again, through every node in turn, while clients open fresh connections,
// keep theirs alive and hold TCP sessions, through the address and past it at every node. Not one of them may notice.
func TestChangesUnderLoad(t *testing.T) {
	s := newCluster(t, serveWeb, serveEcho)
	web, echo := s.servants()
	var direct []string
	for _, n := range s.fleet.Nodes() {
		direct = append(direct, strconv.Quote(n.Host.Addr.String()))
	}
	st := newSite(fmt.Sprintf("vip \"public\" { address = \"%v/24\" }\n", vip), `vip     = "public"`,
		fmt.Sprintf("bind    = [%s]", strings.Join(direct, ", ")), web, echo, s.db)

	var ops []*operator
	for _, n := range s.fleet.Nodes() {
		o := &operator{node: n, api: client.New(n.Socket())}
		t.Cleanup(o.api.Close)
		ops = append(ops, o)
	}
	revision := s.apply(ops[0], 0, st.text())
	s.held()
	holder := s.holder()

	c := s.crowd(vip)
	for _, n := range s.fleet.Nodes() {
		c.start("kept alive, "+n.Name, &lab.Load{Target: netip.AddrPortFrom(n.Host.Addr, directPort), KeepAlive: true, Every: 50 * time.Millisecond})
	}
	c.ready()

	random := rand.New(rand.NewPCG(reloadSeed, 0))
	b := &book{name: "reload", since: time.Now(), uses: presence{}}
	for _, n := range s.fleet.Nodes() {
		b.agents = append(b.agents, &agent{name: n.Name, pid: n.Agent().Pid})
	}
	for i := range *changes {
		if i%max(1, *changes/20) == 0 {
			b.weigh()
		}
		o := ops[i%len(ops)]
		next := st.change(random, true)
		if next.Closes != nil {
			c.stop(next.Closes.Port)
		}
		since := time.Now()
		b.uses.before(next.Next)
		if next.Admin != nil {
			s.set(o, *next.Admin)
		} else {
			old := revision
			revision = s.apply(o, old, next.Next.text())
			if i%25 == 0 {
				s.refused(o, old, next.Next.text(), api.CodeStaleRevision)
				s.refused(o, revision, "frontend \"shop\" {\n", api.CodeInvalidConfig)
			}
		}
		b.took = append(b.took, time.Since(since))
		b.progress(t, fmt.Sprintf("for %d of %d changes", len(b.took), *changes), c.count)
		b.uses.after(st, next.Next)
		st = next.Next
		if next.Opens != nil {
			c.open(*next.Opens, vip)
		}
		if i%10 == 0 {
			s.inForce(st, vip, 80)
			for _, n := range s.fleet.Nodes() {
				s.inForce(st, n.Host.Addr, directPort)
			}
		}
		if t.Failed() {
			t.Fatalf("after change %d: %s", i+1, next.What)
		}
	}
	b.until = time.Now()
	b.weigh()
	c.leave()
	b.judge(t, c)
	for _, o := range ops {
		doc, err := o.api.Config(s.ctx)
		s.must(err)
		if doc.Text != st.text() || doc.Revision.Number != revision {
			t.Errorf("%s ends with revision %d, want %d and the text that was applied", o.node.Name, doc.Revision.Number, revision)
		}
	}
	s.heldThroughout(holder, b.since)
}

// TestSingleNodeReloads does so with one node without a cluster, which reads its file again when it is told to. Every fourth file
// is bad, in one of the ways in which files are; such a one must change nothing.
func TestSingleNodeReloads(t *testing.T) {
	s := newWorld(t)
	host := s.host("lb1")
	for _, name := range []string{"web1", "web2", "web3"} {
		s.servers = append(s.servers, server{name, serveWeb(s, s.host(name))})
	}
	s.db = serveEcho(s, s.host("db1"))
	s.client = s.host("client")
	web, echo := s.servants()
	st := newSite("", fmt.Sprintf("bind    = [\"%v\"]", host.Addr), "", web, echo, s.db)

	file := filepath.Join(s.dir, "site.hcl")
	write := func(text string) { s.must(os.WriteFile(file, []byte(text), 0o600)) }
	write(st.text())
	said := &lines{}
	cmd := lab.Command(*binary, "run", file, "--drain", "5s")
	cmd.Stdout, cmd.Stderr = said, said
	p, err := host.Start(cmd)
	s.must(err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("--- the end of what skein said\n%s", said.tail(40))
		}
	})
	s.until("the node serves", func() bool { return said.count("skein: serving") > 0 })
	// Another program's port: opening it fails, and with it the whole change.
	const taken = 9999
	_, err = host.Listen("tcp", netip.AddrPortFrom(host.Addr, taken).String())
	s.must(err)

	c := s.crowd(host.Addr)
	c.ready()
	random := rand.New(rand.NewPCG(reloadSeed, 1))
	b := &book{name: "reload-single", since: time.Now(), uses: presence{}, agents: []*agent{{name: "lb1", pid: p.Pid}}}
	n := *changes / 5
	for i := range n {
		if i%max(1, n/20) == 0 {
			b.weigh()
		}
		if i%4 == 3 {
			bad := []string{
				strings.Replace(st.text(), `backend = "shop"`, `backend = "shp"`, 1),
				st.text() + "\nfrontend \"half\" {\n  bind = [\"127.0.0.1\"]\n",
				st.text() + fmt.Sprintf("frontend \"taken\" {\n  %s\n  http    = [%d, %d]\n  backend = \"shop\"\n}\n", st.On, extraPort+50, taken),
				"vip \"public\" { address = \"198.18.0.100/24\" }\n" + strings.Replace(st.text(), st.On, "vip = \"public\"", 1),
			}[i/4%4]
			write(bad)
			old := said.count("the old configuration goes on serving")
			s.must(p.Signal(unix.SIGHUP))
			s.until("the bad file is refused", func() bool { return said.count("the old configuration goes on serving") > old })
			s.inForce(st, host.Addr, 80)
			s.closed(host.Addr, extraPort+50)
		}
		next := st.change(random, false)
		if next.Closes != nil {
			c.stop(next.Closes.Port)
		}
		since := time.Now()
		write(next.Next.text())
		b.uses.before(next.Next)
		old := said.count(" is in force")
		s.must(p.Signal(unix.SIGHUP))
		s.until("the file is in force", func() bool { return said.count(" is in force") > old })
		b.took = append(b.took, time.Since(since))
		b.progress(t, fmt.Sprintf("for %d of %d changes", len(b.took), *changes), c.count)
		b.uses.after(st, next.Next)
		st = next.Next
		if next.Opens != nil {
			c.open(*next.Opens, host.Addr)
		}
		s.inForce(st, host.Addr, 80)
		if t.Failed() {
			t.Fatalf("after change %d: %s", i+1, next.What)
		}
	}
	b.until = time.Now()
	b.weigh()
	c.leave()
	b.judge(t, c)
	s.must(p.Signal(unix.SIGTERM))
	select {
	case <-p.Done():
		if err := p.Err(); err != nil {
			t.Errorf("skein run ended with %v", err)
		}
	case <-time.After(patience):
		t.Errorf("skein run has not ended within %v of SIGTERM, although its clients have gone", patience)
	}
}

// serveWeb starts two web servers on a host, so that there are some to choose from; the address is the first one's.
func serveWeb(s *stage, h *lab.Host) netip.AddrPort {
	var first netip.AddrPort
	for i := range 2 {
		w, err := h.ServeHTTP(fmt.Sprintf("%s-%d", h.Name, i+1), webPort+uint16(i))
		s.must(err)
		if i == 0 {
			first = w.Addr
		}
	}
	return first
}

// serveEcho starts five echo servers on a host; the first one stays what it is, the others come and go.
func serveEcho(s *stage, h *lab.Host) netip.AddrPort {
	var first netip.AddrPort
	for i := range 5 {
		addr, err := h.ServeEcho(echoPort + uint16(i))
		s.must(err)
		if i == 0 {
			first = addr
		}
	}
	return first
}

// servants names what serveWeb and serveEcho have started.
func (s *stage) servants() (web, echo map[string]netip.AddrPort) {
	web, echo = map[string]netip.AddrPort{}, map[string]netip.AddrPort{}
	for _, w := range s.servers {
		for i := range 2 {
			web[fmt.Sprintf("%s-%d", w.name, i+1)] = netip.AddrPortFrom(w.addr.Addr(), webPort+uint16(i))
		}
	}
	for i := 1; i < 5; i++ {
		echo[fmt.Sprintf("echo-%d", i)] = netip.AddrPortFrom(s.db.Addr(), echoPort+uint16(i))
	}
	return web, echo
}

// operator works on one node.
type operator struct {
	node *fleet.Node
	api  *client.Client
}

// apply sends a text to a node and returns its revision once every node runs it. When an election leaves open whether it was taken, it looks
// and sends it again, as an operator does.
func (s *stage) apply(o *operator, basedOn uint64, text string) (revision uint64) {
	s.t.Helper()
	s.insist(o, func(ctx context.Context, again bool) error {
		if again {
			if doc, err := o.api.Config(ctx); err != nil {
				return err
			} else if doc.Text == text {
				basedOn = doc.Revision.Number // it was: once more, to hear of every node
			}
		}
		return o.api.Apply(ctx, api.ApplyRequest{File: "site.hcl", Text: text, BasedOn: &basedOn}, func(e api.ApplyEvent) {
			if e.Node != nil && !e.Node.OK {
				s.t.Errorf("%s does not run the new configuration: %s", e.Node.Node, e.Node.Error)
			}
			if e.Done != nil {
				revision = e.Done.Revision
			}
		})
	}, text)
	return revision
}

// insist does what may be done twice until it is known to be done.
func (s *stage) insist(o *operator, do func(_ context.Context, again bool) error, what string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	for again := false; ; again = true {
		err := do(ctx, again)
		if err == nil {
			return
		}
		var refusal *api.Error
		if !errors.As(err, &refusal) {
			s.t.Fatalf("at %s: %v\n%s", o.node.Name, err, what)
		}
		leaderless := refusal.Code == api.CodeUnknownOutcome || refusal.Code == api.CodeNoQuorum
		if !leaderless && !(again && refusal.Code == api.CodeStaleRevision) {
			for _, d := range refusal.Diagnostics {
				s.t.Logf("%+v", d)
			}
			s.t.Fatalf("at %s: %v\n%s", o.node.Name, err, what)
		}
		s.t.Logf("at %s, again: %v", o.node.Name, err)
		select {
		case <-ctx.Done():
			s.t.Fatalf("still not after %v at %s: %v\n%s", patience, o.node.Name, err, what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// refused sends a text that must not be taken.
func (s *stage) refused(o *operator, basedOn uint64, text string, want api.Code) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := o.api.Apply(ctx, api.ApplyRequest{Text: text, BasedOn: &basedOn}, func(api.ApplyEvent) {})
	var refusal *api.Error
	if !errors.As(err, &refusal) || refusal.Code != want {
		s.t.Errorf("%s says %v, want a refusal with %q", o.node.Name, err, want)
	}
}

// set sets something of a server.
func (s *stage) set(o *operator, set setting) {
	s.t.Helper()
	var req api.ServerRequest
	if set.State != "" {
		req.State = &set.State
	}
	if set.Weight >= 0 {
		req.Weight = &set.Weight
	}
	s.insist(o, func(ctx context.Context, _ bool) error {
		_, err := o.api.SetServer(ctx, set.Backend, set.Server, req)
		return err
	}, fmt.Sprintf("set %+v", set))
}

// inForce asks a node which site it serves, and whether routes of its own are there exactly if they should be.
func (s *stage) inForce(st *site, addr netip.Addr, port uint16) {
	s.t.Helper()
	to := netip.AddrPortFrom(addr, port)
	code, body, err := s.get(to, "/number")
	if err != nil || code != 200 || body != strconv.Itoa(st.Number) {
		s.t.Errorf("%v serves the site of number %q (HTTP %d, %v), want %d", to, body, code, err, st.Number)
	}
	if port == directPort || st.Named == 0 {
		return
	}
	name := fmt.Sprintf("r%d", st.Named)
	if code, _, err := s.get(to, "/rules/"+name); err != nil || code != st.answer(name) {
		s.t.Errorf("%v answers /rules/%s with HTTP %d (%v), want %d", to, name, code, err, st.answer(name))
	}
}

// get makes one request from the client.
func (s *stage) get(to netip.AddrPort, path string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(s.ctx, deadline)
	defer cancel()
	c, err := s.client.Dial(ctx, "tcp", to.String())
	if err != nil {
		return 0, "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(deadline))
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %v\r\nUser-Agent: skein-lab\r\nConnection: close\r\n\r\n", path, to); err != nil {
		return 0, "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// closed reports a port that is open.
func (s *stage) closed(addr netip.Addr, port uint16) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	if c, err := s.client.Dial(ctx, "tcp", netip.AddrPortFrom(addr, port).String()); err == nil {
		c.Close()
		s.t.Errorf("port %d of a refused configuration is open", port)
	}
}

// lines keeps what a program said.
type lines struct {
	mu sync.Mutex
	// mu guards the following.
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.text.Bytes(), []byte(what))
}

func (l *lines) tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := strings.Split(strings.TrimSpace(l.text.String()), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}
