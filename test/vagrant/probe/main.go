// Command probe is the client of the lab of virtual machines: it asks the VIP again and again, watches who answers for it on the wire,
// keeps long connections open, and says as JSON what became of them. With -echo it is the far end of the long connections instead.
//
// It acts on nothing; test/vagrant does. The one rule: a holder is a MAC that answers, never anybody's opinion.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/skeinlb/skein/internal/lab"
)

// Report is what probe prints.
type Report struct {
	Requests   int            `json:"requests"`
	Failed     int            `json:"failed"`
	Errors     map[string]int `json:"errors,omitempty"`
	OutageMs   float64        `json:"outage_ms"`
	Over       bool           `json:"over"` // the service was back at the end
	SlowestMs  float64        `json:"slowest_ms"`
	Samples    int            `json:"samples"`
	TwoHolders int            `json:"two_holder_samples"`
	TwoMs      float64        `json:"two_holder_ms"`
	Holders    []string       `json:"holders"` // MACs in the order in which they answered
	Streams    int            `json:"streams"`
	Cut        int            `json:"streams_cut"`
	Silent     int            `json:"streams_silent"` // at the end, for longer than patience
	CutBy      map[string]int `json:"streams_cut_by,omitempty"`
	LengthMs   float64        `json:"length_ms"` // it looked for so long
}

// patience is for how long a long connection may be silent before its client would give it up. A host that is gone tells nobody.
const patience = 5 * time.Second

func main() {
	vip := flag.String("vip", "", "the VIP")
	iface := flag.String("if", "eth1", "interface to look from")
	from := flag.String("from", "", "first of 63 unused addresses of the subnet to ask by ARP from")
	length := flag.Duration("for", 10*time.Second, "how long")
	eof := flag.Bool("until-eof", false, "end when standard input does, if that is earlier")
	every := flag.Duration("every", 20*time.Millisecond, "between two requests, and between two questions by ARP")
	deadline := flag.Duration("deadline", time.Second, "for one request")
	streams := flag.Int("streams", 0, "long connections to port 7000 of the VIP")
	echo := flag.String("echo", "", "serve echo at this address and nothing else")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), *length)
	defer cancel()
	if *eof {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // an error is an end, too
			cancel()
		}()
	}
	if err := run(ctx, *vip, *iface, *from, *every, *deadline, *streams, *echo); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, vip, iface, from string, every, deadline time.Duration, streams int, echo string) error {
	if echo != "" {
		return serveEcho(echo)
	}
	addr, err := netip.ParseAddr(vip)
	if err != nil {
		return err
	}
	h, err := lab.Here("client", iface)
	if err != nil {
		return err
	}
	watch := &lab.ARPWatch{Addr: addr, Every: every}
	if from != "" {
		if watch.From, err = netip.ParseAddr(from); err != nil {
			return err
		}
	}
	load := &lab.Load{Target: netip.AddrPortFrom(addr, 80), Every: every, Deadline: deadline}
	start := time.Now()
	var wg sync.WaitGroup
	errs := make(chan error, 2)
	wg.Go(func() { errs <- watch.Run(ctx, h) })
	wg.Go(func() { errs <- load.Run(ctx, h) })
	long := make([]*lab.Stream, streams)
	failed := make([]error, streams)
	for i := range long {
		long[i] = &lab.Stream{Target: netip.AddrPortFrom(addr, 7000), Every: 100 * time.Millisecond}
		wg.Go(func() { failed[i] = long[i].Run(ctx, h) })
	}
	fmt.Fprintln(os.Stderr, "probe runs") // what it is to see may happen now
	wg.Wait()
	for range 2 {
		if err := <-errs; err != nil {
			return err
		}
	}
	out, all := load.Record.Outage(start), watch.Samples(start)
	r := Report{
		Requests: out.Requests, Failed: out.Failed, Errors: out.Errors, OutageMs: millis(out.Length()), Over: out.Over(),
		SlowestMs: millis(out.Slowest), Samples: len(all), Streams: streams, LengthMs: millis(time.Since(start)),
	}
	two, longest := watch.TwoHolders(start)
	r.TwoHolders, r.TwoMs = two, millis(longest)
	for _, s := range all {
		for _, who := range s.Holders {
			mac := net.HardwareAddr(who[:]).String()
			if n := len(r.Holders); n == 0 || r.Holders[n-1] != mac {
				r.Holders = append(r.Holders, mac)
			}
		}
	}
	for i, s := range long {
		r.count(s.Report(), failed[i])
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// count adds a long connection to what was lost of them; err is why it could not be made.
func (r *Report) count(s lab.StreamReport, err error) {
	why := s.Lost(patience)
	switch {
	case err != nil:
		why = err.Error()
	case why == "":
		return
	case s.Cut.IsZero():
		r.Silent++
		return
	}
	if r.Cut++; r.CutBy == nil {
		r.CutBy = map[string]int{}
	}
	r.CutBy[why]++
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// serveEcho gives back what it is sent until it is killed.
func serveEcho(at string) error {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c) // the end of the connection is its only error that matters, and it ends it
		}()
	}
}
