package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// kind is a way to be slow: what is sent at first, and what once a second from then on.
type kind struct {
	name  string
	first string
	drip  string
	reads bool // ten bytes a second
}

var (
	slowHeader = kind{name: "slow header", first: "GET / HTTP/1.1\r\nHost: x\r\n", drip: "X-A: b\r\n"}
	slowBody   = kind{name: "slow body", first: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", drip: "x"}
	slowChunks = kind{name: "slow chunks", first: "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", drip: "1\r\nx\r\n"}
	slowRead   = kind{name: "slow read", first: "GET /big HTTP/1.1\r\nHost: x\r\n\r\n", reads: true}
)

// giveUp is after how long an attacker that is not cut counts as one that never will be.
const giveUp = 25 * time.Second

// bigBody is what slow readers ask for: more than the socket to one of them holds. A thousand times 64 MiB would not test skein but
// the machine's memory for TCP (net.ipv4.tcp_mem), of which every connection between here and the server takes its share.
const bigBody = 1 << 20

// serve is the server behind: /big sends a lot, everything else reads the request to its end and says ok.
func serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/big" {
		w.Header().Set("Content-Length", fmt.Sprint(bigBody))
		io.Copy(w, io.LimitReader(zeros{}, bigBody))
		return
	}
	io.Copy(io.Discard, r.Body)
	io.WriteString(w, "ok")
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// attack has n attackers of a kind creep until all are cut or have given up, with canaries beside them.
func attack(ctx context.Context, addr string, k kind, n int) (*Attack, error) {
	conns := make([]*net.TCPConn, n)
	for i := range conns {
		c, err := dial(ctx, addr, k.reads)
		if err != nil {
			return nil, fmt.Errorf("connection %d of %d: %w", i+1, n, err)
		}
		defer c.Close()
		conns[i] = c
	}
	watch, end := context.WithCancel(ctx)
	var flock canaries
	var wg, birds sync.WaitGroup
	birds.Go(func() { flock.sing(watch, addr, false) })
	birds.Go(func() { flock.sing(watch, addr, true) })
	cuts := make([]time.Duration, n)
	for i, c := range conns {
		wg.Go(func() { cuts[i] = creep(ctx, c, k) })
	}
	wg.Wait()
	end()
	birds.Wait()

	a := &Attack{Name: k.name, Connections: n, Canaries: flock.asked, Answered: len(flock.took)}
	var times []float64
	for _, d := range cuts {
		if d < giveUp {
			a.Cut++
		}
		times = append(times, d.Seconds())
	}
	times = sorted(times)
	a.CutMedian, a.CutMax = quantile(times, 0.5), quantile(times, 1)
	took := sorted(flock.took)
	a.CanaryP50, a.CanaryP99, a.CanaryMax = quantile(took, 0.5), quantile(took, 0.99), quantile(took, 1)
	return a, ctx.Err()
}

func dial(ctx context.Context, addr string, small bool) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	if small { // the window that the peer sees: what the attacker's machine takes without the attacker
		d.Control = func(_, _ string, rc syscall.RawConn) error {
			return rc.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
		}
	}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// creep is one attacker. It returns how long it was let.
func creep(ctx context.Context, c *net.TCPConn, k kind) time.Duration {
	start := time.Now()
	if _, err := io.WriteString(c, k.first); err != nil {
		return time.Since(start)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	b := make([]byte, 10)
	for time.Since(start) < giveUp {
		select {
		case <-ctx.Done():
			return giveUp
		case <-look.C:
			if closed(c) {
				return time.Since(start)
			}
		case <-tick.C:
			if k.reads {
				c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
				c.Read(b)
			} else if _, err := io.WriteString(c, k.drip); err != nil {
				return time.Since(start)
			}
		}
	}
	return giveUp
}

// closed says whether the peer has ended or reset the connection. The socket knows at once, whatever is still to be read.
func closed(c *net.TCPConn) bool {
	rc, err := c.SyscallConn()
	if err != nil {
		return true
	}
	gone := true
	rc.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		gone = err != nil || info.State != unix.BPF_TCP_ESTABLISHED
	})
	return gone
}

// canaries are honest clients: one that connects anew for each request, one that keeps its connection.
type canaries struct {
	mu sync.Mutex
	// mu guards the following.
	asked int
	took  []float64
}

// sing asks some thirty times a second until ctx ends.
func (f *canaries) sing(ctx context.Context, addr string, keep bool) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: !keep}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(33 * time.Millisecond)
	defer tick.Stop()
	for {
		start := time.Now()
		ok := f.ask(client, addr, keep)
		took := time.Since(start).Seconds()
		f.mu.Lock()
		f.asked++
		if ok {
			f.took = append(f.took, took)
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (f *canaries) ask(client *http.Client, addr string, post bool) bool {
	var resp *http.Response
	var err error
	if post {
		resp, err = client.Post("http://"+addr+"/", "text/plain", strings.NewReader("a body"))
	} else {
		resp, err = client.Get("http://" + addr + "/")
	}
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return err == nil && resp.StatusCode == 200 && string(b) == "ok"
}
