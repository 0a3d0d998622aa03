package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Traffic is what real requests teach: each has a client of its own in its header. The three nodes' loops share one address
// (SO_REUSEPORT), so the kernel spreads the connections over them; clients, servers and nodes share the machine.
type Traffic struct {
	KeepAlive bool    `json:"keep_alive"` // else a connection per request
	Clients   int     `json:"connections"`
	Requests  int     `json:"requests"`
	Failed    int     `json:"failed"`
	Seconds   float64 `json:"seconds"`
	Rate      float64 `json:"per_second"` // entries learned, each by a request of its own
	OnAll     int     `json:"entries_on_every_node"`
	Dropped   uint64  `json:"dropped"`
	P50Ms     float64 `json:"request_p50_ms"`
	P99Ms     float64 `json:"request_p99_ms"`
}

const trafficClients = 64

// traffic runs three nodes with real loops and sends requests for a while.
func traffic(ctx context.Context, dir string, keepAlive bool, length time.Duration, log *slog.Logger) (r Traffic, err error) {
	r = Traffic{KeepAlive: keepAlive, Clients: trafficClients}
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return r, err
	}
	defer server.Close()
	go answer(server)
	t, err := openTrio(ctx, filepath.Join(dir), true, log)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	port, err := freePort()
	if err != nil {
		return r, err
	}
	err = t.configure(ctx, fmt.Sprintf(`backend %q {
  sticky "table" {
    key  = header["x-client"]
    ttl  = "24h"
    size = 2000000
  }
  server "s1" { address = %[2]q }
  server "s2" { address = %[2]q }
}

frontend "web" {
  bind    = ["127.0.0.1"]
  http    = %[3]d
  backend = %[1]q
}
`, backend, server.Addr().String(), port))
	if err != nil {
		return r, err
	}
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
	var client, failed atomic.Int64
	took := make([][]time.Duration, trafficClients)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range took {
		wg.Go(func() {
			c := requester{at: at, keepAlive: keepAlive}
			defer c.close()
			for time.Since(start) < length && ctx.Err() == nil {
				before := time.Now()
				if err := c.ask(client.Add(1)); err != nil {
					failed.Add(1)
					continue
				}
				took[i] = append(took[i], time.Since(before))
			}
		})
	}
	wg.Wait()
	r.Seconds = time.Since(start).Seconds()
	var all []time.Duration
	for _, ds := range took {
		all = append(all, ds...)
	}
	r.Requests, r.Failed = len(all), int(failed.Load())
	r.P50Ms, r.P99Ms = millis(quantile(all, 0.5)), millis(quantile(all, 0.99))
	err = poll(ctx, "what traffic taught, on every node", func() bool {
		have := t.entries()
		r.OnAll = min(have[0], have[1], have[2])
		return r.OnAll+int(t.dropped()) >= r.Requests
	})
	r.Dropped = t.dropped()
	r.Rate = float64(r.OnAll) / r.Seconds
	say("traffic, keep-alive %v: %d requests, %d failed, %.0f entries/s on every node, %d dropped", keepAlive, r.Requests, r.Failed, r.Rate, r.Dropped)
	return r, err
}

// requester is one client of the load: one request after another.
type requester struct {
	at        string
	keepAlive bool
	conn      net.Conn
	r         *bufio.Reader
	buf       []byte
}

func (q *requester) close() {
	if q.conn != nil {
		q.conn.Close()
		q.conn = nil
	}
}

// ask sends a request of a client that was never seen and reads the answer.
func (q *requester) ask(client int64) error {
	if q.conn == nil {
		c, err := net.DialTimeout("tcp", q.at, time.Second)
		if err != nil {
			return err
		}
		q.conn = c
		if q.r == nil {
			q.r = bufio.NewReaderSize(nil, 2<<10)
		}
		q.r.Reset(c)
	}
	q.buf = append(q.buf[:0], "GET / HTTP/1.1\r\nhost: bench\r\nx-client: "...)
	q.buf = strconv.AppendInt(q.buf, client, 10)
	if !q.keepAlive {
		q.buf = append(q.buf, "\r\nconnection: close"...)
	}
	q.buf = append(q.buf, "\r\n\r\n"...)
	err := q.exchange()
	if err != nil || !q.keepAlive {
		q.close()
	}
	return err
}

func (q *requester) exchange() error {
	q.conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := q.conn.Write(q.buf); err != nil {
		return err
	}
	line, err := q.r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("answer %q", line)
	}
	for len(line) > 2 { // to the empty line
		if line, err = q.r.ReadSlice('\n'); err != nil {
			return err
		}
	}
	_, err = io.CopyN(io.Discard, q.r, int64(len(page)))
	return err
}

const page = "0123456789abcdef"

// answer serves every request with the same page until l is closed.
func answer(l net.Listener) {
	reply := []byte("HTTP/1.1 200 OK\r\ncontent-length: " + strconv.Itoa(len(page)) + "\r\n\r\n" + page)
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			r := bufio.NewReaderSize(c, 2<<10)
			for {
				line, err := r.ReadSlice('\n')
				if err != nil {
					return
				}
				if len(line) == 2 {
					if _, err := c.Write(reply); err != nil {
						return
					}
				}
			}
		}()
	}
}
