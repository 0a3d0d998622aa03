package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Download is one large answer that a client takes slowly, as over a thin line: it must arrive whole, however long that takes.
type Download struct {
	Target netip.AddrPort
	Path   string // of something large, "/bytes/50000000"
	Rate   int    // bytes a second

	mu sync.Mutex
	// mu guards the following.
	report DownloadReport
}

// DownloadReport is what a Download has got.
type DownloadReport struct {
	Bytes int64
	Done  bool   // all of it
	Why   string // it broke off; "": it did not
}

// Report returns how far it is.
func (d *Download) Report() DownloadReport {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.report
}

// Run downloads from h until all is there, it breaks off, or ctx ends.
func (d *Download) Run(ctx context.Context, h *Host) error {
	c, err := h.connect(d.Target, time.Now().Add(5*time.Second))
	if err != nil {
		return fmt.Errorf("download from %s: %w", h.Name, err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := c.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("download from %s: %w", h.Name, err)
	}
	err = d.take(c)
	if ctx.Err() != nil {
		return nil
	}
	d.mu.Lock()
	d.report.Done, d.report.Why = err == nil, inAWord(err)
	d.mu.Unlock()
	return nil
}

// take reads a step's worth of bytes at each step.
func (d *Download) take(c *os.File) error {
	const step = 20 * time.Millisecond
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %v\r\nConnection: close\r\n\r\n", d.Path, d.Target); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 4<<10), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	tick := time.NewTicker(step)
	defer tick.Stop()
	for range tick.C {
		n, err := io.CopyN(io.Discard, resp.Body, max(int64(d.Rate)*int64(step)/int64(time.Second), 1))
		d.mu.Lock()
		d.report.Bytes += n
		d.mu.Unlock()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Idler is a client with one HTTP connection that it has used once and keeps. It notes what becomes of it.
type Idler struct {
	Target netip.AddrPort

	conn *os.File
	r    *bufio.Reader
	load Load
}

// What became of an idle connection.
const (
	IdleOpen   = ""       // nothing
	IdleClosed = "closed" // the other side has closed it in good order
)

// Open connects from h and makes the one request.
func (i *Idler) Open(h *Host) error {
	c, err := h.connect(i.Target, time.Now().Add(5*time.Second))
	if err != nil {
		return fmt.Errorf("idle connection from %s: %w", h.Name, err)
	}
	i.conn, i.r, i.load = c, bufio.NewReaderSize(c, 4<<10), Load{Target: i.Target}
	if _, keep, err := i.load.exchange(c, i.r, false); err != nil || !keep {
		c.Close()
		return fmt.Errorf("idle connection from %s: kept open: %v, %w", h.Name, keep, err)
	}
	return nil
}

// Look says what became of the connection up to now, without using it: IdleOpen, IdleClosed or an error in a word.
func (i *Idler) Look() string {
	i.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := i.r.Peek(1)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return IdleOpen
	case errors.Is(err, io.EOF):
		return IdleClosed
	}
	return inAWord(err)
}

// Use makes another request on the connection. It returns whether the server wants to keep it open.
func (i *Idler) Use() (keep bool, err error) {
	i.conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, keep, err = i.load.exchange(i.conn, i.r, false)
	return keep, err
}

// Close closes it.
func (i *Idler) Close() { i.conn.Close() }
