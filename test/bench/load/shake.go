package load

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// shake is the job of handshakes: connect, shake hands, one request, read to the end. A handshake keeps a client's processor busy for
// much longer than the scheduler does, so that here every connection has a goroutine.
func shake(j Job) (Result, error) {
	var cache tls.ClientSessionCache
	if j.Resume {
		cache = tls.NewLRUClientSessionCache(8)
	}
	s := &shaker{Job: j, config: tlsConfig(cache), until: 1 << 62, since: 1 << 62}
	var work sync.WaitGroup
	var stop atomic.Bool
	due := make(chan int64, 1<<16) // with a rate: what is due, never full within the length of a job
	if j.Rate == 0 {
		close(due)
	}
	for range j.Conns {
		work.Go(func() {
			for at := range due {
				s.once(at)
			}
			for j.Rate == 0 && !stop.Load() {
				s.once(nanos())
			}
		})
	}
	m := meter{watch: j.Watch}
	begin := nanos()
	next := int64(0)
	until := func(end int64) {
		if j.Rate == 0 {
			time.Sleep(time.Duration(end - nanos()))
			return
		}
		for {
			at := begin + int64(float64(next)*1e9/j.Rate)
			if at >= end {
				time.Sleep(time.Duration(end - nanos()))
				return
			}
			if wait := at - nanos(); wait > 0 {
				time.Sleep(time.Duration(wait))
			}
			next++
			due <- at
		}
	}
	until(begin + int64(j.Warm))
	if err := m.mark(); err != nil {
		return Result{}, err
	}
	end := m.at + int64(j.For)
	s.mu.Lock()
	if s.since = m.at; j.Rate > 0 {
		s.until = end
	}
	s.mu.Unlock()
	until(end)
	for j.Rate == 0 && s.answers() == 0 && nanos() < end+int64(silence) { // a round without an answer says nothing: rather a longer one
		time.Sleep(time.Millisecond)
	}
	if j.Rate == 0 {
		s.close(nanos())
	}
	cpu, seconds, err := m.since()
	if err != nil {
		return Result{}, err
	}
	stop.Store(true)
	if j.Rate > 0 {
		close(due)
	}
	work.Wait() // what is due and not begun is done too, and its latency counts from then
	r := Result{Requests: s.done, Errors: s.errors.Load(), Resumed: s.resumed, Seconds: seconds, CPU: cpu}
	r.latencies(&s.hist)
	if r.Errors > maxErrors {
		return r, fmt.Errorf("%d errors, the last: %w", r.Errors, *s.last.Load())
	}
	return r, nil
}

type shaker struct {
	Job
	config *tls.Config
	errors atomic.Uint64
	last   atomic.Pointer[error]

	mu           sync.Mutex // guards the following
	since, until int64
	done         uint64
	resumed      uint64
	hist         hist
}

func (s *shaker) answers() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

// close ends what is counted.
func (s *shaker) close(at int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = at
}

func (s *shaker) once(due int64) {
	resumed, err := s.ask()
	now := nanos()
	if err != nil {
		s.last.Store(&err)
		if s.errors.Add(1) > maxErrors {
			time.Sleep(10 * time.Millisecond) // given up; do no harm until the end
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if due < s.since || due >= s.until {
		return
	}
	if now < s.until {
		s.done++
		if resumed {
			s.resumed++
		}
	}
	if s.Rate > 0 || now < s.until {
		s.hist.add(now - due)
	}
}

func (s *shaker) ask() (resumed bool, err error) {
	c, err := net.DialTimeout("tcp4", s.Addr, 5*time.Second)
	if err != nil {
		return false, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return false, err
	}
	t := tls.Client(c, s.config)
	if err := t.Handshake(); err != nil {
		return false, err
	}
	if _, err := t.Write(s.Requests[0]); err != nil {
		return false, err
	}
	b, err := io.ReadAll(t)
	if err != nil {
		return false, err
	}
	if head, body, _ := bytes.Cut(b, []byte("\r\n\r\n")); !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) || len(body) != s.Want {
		return false, fmt.Errorf("answered %q and %d bytes", head, len(body))
	}
	return t.ConnectionState().DidResume, nil
}
