package vip

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// gate lets the kernel answer ARP and neighbour discovery for a VIP only for moments: a stopped guard can't close anything, so it
// must be the opening that needs work. In a netdev table of nftables, the one family whose hooks see ARP, IPv6 and loopback alike and
// may share a set:
//
//	table netdev skein-vip {
//	  set vips4, vips6 { elements = the VIPs }
//	  set live4, live6 { flags dynamic, timeout }
//	  chain tick    ingress lo:   a datagram with our secret puts the address in it into live, for one of the times in gates
//	  chain in-N    ingress dev:  an ARP request or a neighbour solicitation for one of vips that is not in live is dropped
//	  chain out-N   egress dev:   an ARP frame from one of vips that is not in live is dropped, and so is a neighbour
//	                              advertisement of it and a solicitation sent from it (Linux 5.16)
//	}
//
// To open is one datagram to loopback, no netlink: a send that takes 3 µs and allocates nothing. The last chain also swallows
// an announcement for which the lease was checked just before the guard was stopped.
//
// This is the loop's end of it: it opens, and says what the rules are to be. A worker makes them (gateRules), however long the kernel takes:
// a lease must end in time while it does. Between the two go one job and its outcome; what is wanted meanwhile is done after it, the newest only.
type gate struct {
	opener
	gateState          // as the worker said last
	wish      gateWish // the newest
	newsFd    int      // what others do to nftables; -1: not heard
	news      [4096]byte

	jobs    chan gateJob     // nil: no worker
	done    chan gateOutcome // room for the one that can be under way
	ended   chan struct{}
	wakeFd  int   // an eventfd: the worker has made rules, or is done
	since   int64 // when the job under way began; 0: there is none
	again   bool  // another one is wanted after it
	look    bool  // and it shall look whatever the kernel's count says
	noLoop  bool  // the loopback is down, over which it is opened
	retryAt int64 // when to try again what failed
}

const (
	gatePort = 7949
	gateSize = 24   // secret (8, the last byte xor class), address (4 or 16)
	gateSix  = 0x80 // in the class: the address is one of IPv6

	// gateMost is for how long anything waits for the worker: a claim for the gate of what is new, and the guard's end for the gate's.
	gateMost = int64(time.Second)
)

// gateWish is what the gate is to be. Loop and worker share it, so it is not changed any more once it was said.
type gateWish struct {
	vips []netip.Addr // none: there is to be no gate
	devs []gateDev
	why  string // there is to be none
}

// gateDev is an interface that the gate watches. One that was made anew has its name, but none of the rules.
type gateDev struct {
	name  string
	index int
}

func (w gateWish) is(o gateWish) bool {
	return w.why == o.why && slices.Equal(w.vips, o.vips) && slices.Equal(w.devs, o.devs)
}

// gateState is what has become of a wish.
type gateState struct {
	up   bool
	left bool   // the table may be there, also while it is not up: then it has to be opened all the same
	why  string // that it is not up
}

// String is what State.Gate says.
func (s gateState) String() string {
	if s.up {
		return "nftables"
	}
	return "none: " + s.why + "; the kernel's address lifetime of 3 s is the last resort"
}

type gateJob struct {
	wish gateWish
	look bool
}

type gateOutcome struct {
	wish   gateWish
	state  gateState
	made   bool // the rules are new, or may be
	mended bool // what should have been there was not
	err    error
}

func newGate() *gate {
	return &gate{opener: newOpener(), gateState: gateState{why: "not set up yet"}, newsFd: -1, wakeFd: -1}
}

// start opens the loop's sockets and starts the worker, which close ends. r is the worker's from here on.
func (g *gate) start(r *gateRules) (err error) {
	if err := g.opener.open(); err != nil {
		return err
	}
	if g.wakeFd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("open eventfd: %w", err)
	}
	g.newsFd = hearNews()
	r.secret, r.gateState = g.secret, g.gateState
	g.jobs, g.done, g.ended = make(chan gateJob, 1), make(chan gateOutcome, 1), make(chan struct{})
	go g.work(r)
	return nil
}

// work is the worker.
func (g *gate) work(r *gateRules) {
	defer close(g.ended)
	wake := func() { unix.Write(g.wakeFd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }
	for j := range g.jobs {
		g.done <- r.fit(j.wish, j.look, wake)
		wake()
	}
	r.close()
}

// ask has the worker make the rules what the newest wish says, or see that they are; after what it is at.
func (g *gate) ask(now int64) {
	if g.since != 0 || g.jobs == nil {
		g.again = true
		return
	}
	g.left = g.left || len(g.wish.vips) > 0 // from now on the table may be there
	g.jobs <- gateJob{g.wish, g.look}
	g.since, g.again, g.look = now, false, false
}

// hear takes what the worker has done. Not ok: it has made rules, and is still to see that they work.
func (g *gate) hear(now int64) (out gateOutcome, ok bool) {
	var b [8]byte
	unix.Read(g.wakeFd, b[:])
	select {
	case out = <-g.done:
	default:
		return out, false
	}
	g.since, g.gateState = 0, out.state
	if !g.up {
		g.retryAt = now + gateRetry
	}
	if g.newsFd < 0 {
		g.newsFd = hearNews() // nftables may have come since
	}
	if g.again {
		g.ask(now)
	}
	return out, true
}

// late gives up on a worker that the kernel does not let go on: what was true of the gate may not be any more.
func (g *gate) late(now int64) bool {
	if g.since == 0 || now-g.since < gateMost || !g.up {
		return false
	}
	g.up, g.why = false, "nftables has not answered for a second"
	return true
}

// due is whether a look at the rules, or another try, is due.
func (g *gate) due(now int64) bool {
	return g.up || now >= g.retryAt && (g.left || len(g.wish.vips) > 0)
}

// tick lets questions for a be answered for d, which is one of gates. The caller has just seen that the lease lasts that long.
func (g *gate) tick(a netip.Addr, d int64) error {
	if !g.left {
		return nil
	}
	return g.opener.tick(a, d)
}

// hearNews returns a socket that becomes readable when somebody changes nftables' rules, or -1: then they are looked at every second.
func hearNews() int {
	const group = 7 // NFNLGRP_NFTABLES
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return -1
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (group - 1)}); err != nil {
		unix.Close(fd)
		return -1
	}
	return fd
}

// changed drains the news, and is whether there was something that others may have done.
func (g *gate) changed() bool {
	for range batchMax {
		if n, err := unix.Read(g.newsFd, g.news[:]); err != nil && !errors.Is(err, unix.ENOBUFS) || n == 0 {
			break
		}
	}
	return g.up
}

// close ends the worker, which takes the table away first. Where the kernel does not let it, the process ends without.
func (g *gate) close() {
	if g.jobs != nil {
		close(g.jobs)
		select {
		case <-g.ended:
			unix.Close(g.wakeFd)
		case <-time.After(time.Duration(gateMost)): // its descriptor stays: the worker may write to it yet
		}
	} else if g.wakeFd >= 0 {
		unix.Close(g.wakeFd)
	}
	if g.newsFd >= 0 {
		unix.Close(g.newsFd)
	}
	g.opener.close()
}

// opener opens the gate. Loop and worker have one each, of one secret: the worker to see that it works.
type opener struct {
	secret [8]byte
	fd     int
	to     unix.SockaddrInet4
	pkt    [gateSize]byte
}

func newOpener() opener {
	o := opener{fd: -1, to: unix.SockaddrInet4{Port: gatePort, Addr: [4]byte{127, 0, 0, 1}}}
	rand.Read(o.secret[:])
	return o
}

func (o *opener) open() error {
	if o.fd >= 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("gate socket: %w", err)
	}
	o.fd = fd
	return nil
}

func (o *opener) close() {
	if o.fd >= 0 {
		unix.Close(o.fd)
	}
}

// secretFor is what a tick of a class begins with.
func (o *opener) secretFor(class byte) [8]byte {
	s := o.secret
	s[7] ^= class
	return s
}

// tick opens the gate for a, for d, which is one of gates.
func (o *opener) tick(a netip.Addr, d int64) error {
	class := slices.Index(gates[:], d)
	if class < 0 {
		return nil
	}
	size := gateSize
	if a.Is6() {
		s := o.secretFor(byte(class) | gateSix)
		copy(o.pkt[:], s[:])
		b := a.As16()
		copy(o.pkt[8:], b[:])
	} else {
		s := o.secretFor(byte(class))
		copy(o.pkt[:], s[:])
		b := a.As4()
		copy(o.pkt[8:], b[:])
		size = 12
	}
	return unix.Sendto(o.fd, o.pkt[:size], unix.MSG_DONTWAIT, &o.to)
}
