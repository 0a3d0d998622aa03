package vip

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The tests of the edges run real guards in network namespaces. This binary plays all the parts: the test itself once more
// inside a namespace, a node with an agent, and the guard that the agent starts.
func TestMain(m *testing.M) {
	switch os.Getenv("SKEIN_VIP_PART") {
	case "guard":
		log := slog.New(slog.NewTextHandler(os.Stderr, nil))
		g := newGuard(GuardOptions{Log: log, Linger: 20 * time.Second})
		g.rules.conn = muteFor(os.Getenv("SKEIN_VIP_DIR"))
		if err := g.run(context.Background()); err != nil {
			log.Error("guard", "err", err)
			os.Exit(1)
		}
		return
	case "node":
		if err := playNode(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// order is what the test tells a node, one JSON object per line.
type order struct {
	Setup *Setup
	Unfit string
	Fit   bool
	Close bool
	Hang  bool // loop 0 stops to stamp
	Yield bool // the agent makes room for its successor
}

// playNode is an agent with one loop, led through stdin. It prints each State.
func playNode(dir string) error {
	os.Setenv("SKEIN_VIP_PART", "guard")
	a, err := Start(Options{Dir: dir, Args: []string{"-test.run=^$"}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	a.SetFit(true, "")
	word := a.Progress(1)[0]
	hang := make(chan struct{})
	go func() {
		for {
			select {
			case <-hang:
				return
			case <-time.After(10 * time.Millisecond):
				word.Add(1)
			}
		}
	}()
	go func() {
		out := json.NewEncoder(os.Stdout)
		a.State().Each(context.Background(), func(s State) { out.Encode(s) })
	}()
	in := json.NewDecoder(os.Stdin)
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				a.Close()
				return nil
			}
			return err
		}
		switch {
		case o.Setup != nil:
			if err := a.Update(*o.Setup); err != nil {
				return err
			}
		case o.Fit || o.Unfit != "":
			a.SetFit(o.Fit, o.Unfit)
		case o.Hang:
			close(hang)
		case o.Yield:
			a.Yield(5 * time.Second)
		case o.Close:
			a.Close()
			return nil
		}
	}
}

// inNamespace runs the calling test in a network namespace of its own and returns true there. It skips only when the kernel
// permits neither a namespace nor a user namespace.
func inNamespace(t *testing.T) bool {
	if os.Getenv("SKEIN_VIP_PART") == "test" {
		return true
	}
	flags := []uintptr{syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET}
	if os.Geteuid() == 0 {
		flags = []uintptr{syscall.CLONE_NEWNET, flags[0]}
	}
	var errs error
	for _, f := range flags {
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), "SKEIN_VIP_PART=test")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: f, Pdeathsig: syscall.SIGKILL}
		if f&syscall.CLONE_NEWUSER != 0 {
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		}
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		switch {
		case err == nil:
			t.Logf("in a namespace:\n%s", out)
			return false
		case errors.As(err, &exit):
			t.Fatalf("in a namespace: %v\n%s", err, out)
		}
		errs = errors.Join(errs, err)
	}
	t.Skipf("no network namespace can be made here: %v", errs)
	return false
}

// labNode is a node in its own namespace behind a port of the test's bridge.
type labNode struct {
	t    *testing.T
	i    int
	dir  string
	cmd  *exec.Cmd
	in   *json.Encoder
	ns   netns.NsHandle
	link *netlink.Handle
	eth  netlink.Link
	mac  string

	mu    sync.Mutex
	state State
	told  int // how many of them
	guard int
}

func labName(i int) string { return fmt.Sprint("n", i) }
func labAddr(i int) string { return fmt.Sprintf("198.18.0.%d", i+1) }

// lab is a bridge, which is also the client, with nodes on it.
type lab struct {
	t      *testing.T
	bridge netlink.Link
	nodes  []*labNode
	vips   []VIP
	epoch  uint64
	holder string
}

func newLab(t *testing.T, n int) *lab {
	l := &lab{t: t, vips: []VIP{{Name: "public", Addresses: []netip.Prefix{netip.MustParsePrefix(labVIP + "/24")}}}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	must(err)
	must(netlink.LinkSetUp(lo))
	must(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{
		Name: "br0", HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 100}, // given, or it changes with every port
	}}))
	l.bridge, err = netlink.LinkByName("br0")
	must(err)
	must(netlink.AddrAdd(l.bridge, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(198, 18, 0, 100), Mask: net.CIDRMask(24, 32)}}))
	must(netlink.LinkSetUp(l.bridge))
	for i := range n {
		nd := &labNode{t: t, i: i, dir: t.TempDir()}
		l.nodes = append(l.nodes, nd)
		nd.start(true)
		ns, err := netns.GetFromPid(nd.cmd.Process.Pid)
		must(err)
		nd.ns = ns
		nd.link, err = netlink.NewHandleAt(ns)
		must(err)
		lo, err := nd.link.LinkByName("lo")
		must(err)
		must(nd.link.LinkSetUp(lo))
		nd.plug(l)
	}
	t.Cleanup(func() {
		for _, nd := range l.nodes {
			nd.cmd.Process.Kill()
			nd.mu.Lock()
			if nd.guard > 0 {
				syscall.Kill(nd.guard, syscall.SIGKILL)
			}
			nd.mu.Unlock()
			if t.Failed() {
				b, _ := os.ReadFile(nd.dir + "/guard.log")
				t.Logf("guard of n%d:\n%s", nd.i, b)
			}
		}
	})
	for _, nd := range l.nodes {
		nd.tell(order{Setup: l.setup(nd.i)})
	}
	return l
}

// start starts the node's agent: in a namespace of its own, or in the one that the node has already.
func (n *labNode) start(fresh bool) {
	n.cmd = exec.Command("/proc/self/exe", n.dir)
	n.cmd.Env = append(os.Environ(), "SKEIN_VIP_PART=node", "SKEIN_VIP_DIR="+n.dir)
	n.cmd.Stderr = os.Stderr
	if fresh {
		n.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	}
	w, err := n.cmd.StdinPipe()
	if err == nil {
		n.in = json.NewEncoder(w)
	}
	r, err2 := n.cmd.StdoutPipe()
	if err := errors.Join(err, err2); err != nil {
		n.t.Fatal(err)
	}
	if fresh {
		err = n.cmd.Start()
	} else {
		err = inNS(n.ns, n.cmd.Start)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	go func() {
		sc := bufio.NewScanner(r)
		sc.Buffer(nil, controlMax)
		for sc.Scan() {
			var s State
			if err := json.Unmarshal(sc.Bytes(), &s); err != nil {
				continue
			}
			n.mu.Lock()
			n.state = s
			n.told++
			if s.PID > 0 {
				n.guard = s.PID
			}
			n.mu.Unlock()
		}
	}()
}

func (n *labNode) tell(o order) {
	if err := n.in.Encode(o); err != nil {
		n.t.Errorf("tell n%d: %v", n.i, err)
	}
}

func (n *labNode) get() (State, int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state, n.guard
}

// tellings is how many States the node has told.
func (n *labNode) tellings() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.told
}

const labVIP = "198.18.0.50"

func (l *lab) setup(i int) *Setup {
	s := &Setup{
		Self: labName(i), ClusterID: "lab", Keys: [][]byte{[]byte("sixteen bytes of")}, SelfVoter: true, VotersIndex: 1,
		Listen: netip.MustParseAddrPort(labAddr(i) + ":7941"),
		VIPs:   l.vips,
	}
	for j := range l.nodes {
		if j != i {
			s.Peers = append(s.Peers, Peer{Name: labName(j), Voter: true, Addr: netip.MustParseAddrPort(labAddr(j) + ":7941")})
		}
	}
	if l.holder != "" {
		s.Placements = []Placement{{VIP: "public", Node: l.holder, Epoch: Epoch{1, l.epoch}}}
	}
	return s
}

func (l *lab) place(i int, skip ...int) {
	l.epoch++
	l.holder = labName(i)
	for _, n := range l.nodes {
		tell := true
		for _, s := range skip {
			tell = tell && s != n.i
		}
		if tell {
			n.tell(order{Setup: l.setup(n.i)})
		}
	}
}

// until waits for ok and returns how long it took.
func (l *lab) until(what string, ok func() bool) time.Duration {
	l.t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > 8*time.Second {
			for _, n := range l.nodes {
				s, _ := n.get()
				l.t.Logf("n%d: connected=%v problem=%q gate=%q explain=%q", n.i, s.Connected, s.Problem, s.Gate, s.Explain)
			}
			l.t.Fatalf("not within 8 s: %s", what)
		}
		time.Sleep(time.Millisecond / 2)
	}
	return time.Since(start)
}

// inNS runs f on a thread in another network namespace; a child that f starts is born there.
func inNS(ns netns.NsHandle, f func() error) error {
	done := make(chan error)
	go func() {
		lockThread() // never unlocked: the thread ends with the goroutine
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// arpClient asks for the VIP every 2 ms and notes who answers.
type arpClient struct {
	fd    int
	stop  chan struct{}
	done  chan struct{}
	mu    sync.Mutex
	seen  []answer
	frame []byte
	to    unix.SockaddrLinklayer
}

type answer struct {
	at  time.Time
	mac string
	op  byte
}

func (l *lab) client() *arpClient {
	c := &arpClient{stop: make(chan struct{}), done: make(chan struct{})}
	const proto = unix.ETH_P_ARP>>8 | unix.ETH_P_ARP&0xff<<8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		l.t.Fatal(err)
	}
	c.fd = fd
	a := l.bridge.Attrs()
	b := make([]byte, 42)
	copy(b, []byte{255, 255, 255, 255, 255, 255})
	copy(b[6:], a.HardwareAddr)
	copy(b[12:], []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1})
	copy(b[22:], a.HardwareAddr)
	copy(b[28:], []byte{198, 18, 0, 100})
	vip := netip.MustParseAddr(labVIP).As4()
	copy(b[38:], vip[:])
	c.frame = b
	c.to = unix.SockaddrLinklayer{Ifindex: a.Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	go c.run(c.to)
	return c
}

func (c *arpClient) run(to unix.SockaddrLinklayer) {
	defer close(c.done)
	vip := netip.MustParseAddr(labVIP)
	var buf [1514]byte
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		unix.Sendto(c.fd, c.frame, 0, &to)
		for {
			n, err := unix.Read(c.fd, buf[:])
			if err != nil {
				break
			}
			if mac, addr := parseClaim(buf[:n]); addr == vip {
				c.mu.Lock()
				c.seen = append(c.seen, answer{time.Now(), net.HardwareAddr(mac[:]).String(), buf[21]})
				c.mu.Unlock()
			}
		}
		select {
		case <-tick.C:
		case <-c.stop:
			unix.Close(c.fd)
			return
		}
	}
}

// last is the newest answer that says mac, or the newest of all.
func (c *arpClient) last(mac string) (a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.seen {
		if mac == "" || s.mac == mac {
			a = s
		}
	}
	return a
}

func (c *arpClient) first(mac string, after time.Time) (a answer, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.seen {
		if s.mac == mac && s.at.After(after) {
			return s, true
		}
	}
	return a, false
}
