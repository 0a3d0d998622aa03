package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/skeinlb/skein/test/bench/load"
)

// row is a way of asking, with the goals for it.
type row struct {
	name     string
	conns    int
	to       service
	requests []string // with %cookie% for what a server set
	want     int
	upload   int
	close    bool
	tls      bool
	resume   bool
	both     bool // two threads on all processors; only CPU counts
	goal     goal
}

// goal is what a ratio to HAProxy should be: CPU and p99 at most, the rate at least. 0: none.
type goal struct {
	CPU  float64 `json:"cpu,omitempty"`
	Rate float64 `json:"rate,omitempty"`
	P99  float64 `json:"p99,omitempty"`
}

// fixedShare of HAProxy's rate is what latencies are compared at.
const (
	fixedShare = 0.6
	leastRate  = 100 // so that something is due, on a machine where HAProxy got nowhere
)

const (
	mb   = 1 << 20
	kb64 = 64 << 10
)

func get(target string, more ...string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: www.example.com\r\n" + strings.Join(append(more, ""), "\r\n") + "\r\n"
}

// browser is what a browser sends with every request.
func browser(host, target string, more ...string) string {
	fields := []string{"Host: " + host,
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
		"Accept-Encoding: gzip, deflate, br, zstd",
		"Accept-Language: en-US,en;q=0.9,de;q=0.8",
		"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; _ga=GA1.1.1234567890.1700000000%cookie%",
		"Connection: keep-alive",
		"Cache-Control: no-cache",
		"Referer: https://www.example.com/some/long/path?x=1",
	}
	return "GET " + target + " HTTP/1.1\r\n" + strings.Join(append(append(fields, more...), ""), "\r\n") + "\r\n"
}

// rows are all that is measured, in the order of the table.
func rows() []row {
	return []row{
		{name: "keep-alive 128 B", conns: 64, to: web, requests: []string{get("/b128")}, want: 128, goal: goal{.70, 1.1, 1}},
		{name: "keep-alive 1 KB", conns: 64, to: web, requests: []string{get("/b1024")}, want: 1024, goal: goal{.70, 1.1, 1}},
		{name: "keep-alive 128 B", conns: 256, to: web, requests: []string{get("/b128")}, want: 128, goal: goal{.60, 1.2, 1}},
		{name: "keep-alive 1 KB", conns: 256, to: web, requests: []string{get("/b1024")}, want: 1024, goal: goal{.60, 1.2, 1}},
		{name: "keep-alive 128 B", conns: 8, to: web, requests: []string{get("/b128")}, want: 128, goal: goal{.85, 1, 1}},
		{name: "browser, 5 routes, cookie", conns: 64, to: shop, want: 1024, goal: goal{.75, 1, 1}, requests: []string{
			browser("www.example.com", "/static/app/b1024"), browser("www.example.com", "/images/b1024"), browser("api.example.com", "/v1/b1024"),
			browser("www.example.com", "/b1024", "X-Canary: 1"), browser("www.example.com", "/cart/b1024")}},
		{name: "connection: close", conns: 64, to: web, requests: []string{get("/b128", "Connection: close")}, want: 128, close: true, goal: goal{.80, 1, 1}},
		{name: "64 KB", conns: 64, to: bodies, requests: []string{get("/b65536")}, want: kb64, goal: goal{.80, 1, 1}},
		{name: "1 MB", conns: 16, to: bodies, requests: []string{get("/b1048576")}, want: mb, goal: goal{.95, 1, 1}},
		{name: "1 MB upload", conns: 16, to: bodies, want: 128, upload: mb, goal: goal{.95, 1, 1},
			requests: []string{fmt.Sprintf("POST /b128 HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: %d\r\n\r\n", mb)}},
		{name: "TCP small messages", conns: 64, to: tcp, requests: []string{get("/b128")}, want: 128, goal: goal{.95, 1, 1}},
		{name: "TCP connect, request, close", conns: 64, to: tcp, requests: []string{get("/b128?close")}, want: 128, close: true, goal: goal{.95, 1, 1}},
		{name: "TCP bulk", conns: 16, to: bulk, requests: []string{get("/b1048576")}, want: mb, goal: goal{.95, 1, 1}},
		{name: "TLS keep-alive 128 B", conns: 64, to: tlsECDSA, tls: true, requests: []string{get("/b128")}, want: 128, goal: goal{.75, 1, 1}},
		{name: "TLS 64 KB", conns: 64, to: tlsECDSA, tls: true, requests: []string{get("/b65536")}, want: kb64, goal: goal{.80, 1, 1}},
		{name: "TLS bulk", conns: 16, to: tlsECDSA, tls: true, requests: []string{get("/b1048576")}, want: mb, goal: goal{.95, 1, 1}},
		{name: "TLS handshakes, ECDSA", conns: 64, to: tlsECDSA, tls: true, close: true, requests: []string{get("/b128", "Connection: close")}, want: 128, goal: goal{.80, 1.2, 1}},
		{name: "TLS handshakes, resumed", conns: 64, to: tlsECDSA, tls: true, close: true, resume: true, requests: []string{get("/b128", "Connection: close")}, want: 128, goal: goal{.70, 1.3, 1}},
		{name: "TLS handshakes, RSA", conns: 64, to: tlsRSA, tls: true, close: true, requests: []string{get("/b128", "Connection: close")}, want: 128},
		{name: "both processors, 128 B", conns: 64, to: web, requests: []string{get("/b128")}, want: 128, both: true, goal: goal{CPU: .75}},
	}
}

// title names a row.
func (r row) title() string { return fmt.Sprintf("%s, %d", r.name, r.conns) }

// job asks one proxy. cookie is what it has set before.
func (r row) job(p *peer, cookie string) load.Job {
	j := load.Job{Addr: p.addr(r.to), Upload: r.upload, Want: r.want, Conns: r.conns, Close: r.close, TLS: r.tls, Resume: r.resume}
	if cookie != "" {
		cookie = "; " + cookie
	}
	for _, text := range r.requests {
		j.Requests = append(j.Requests, []byte(strings.ReplaceAll(text, "%cookie%", cookie)))
	}
	return j
}

// runRows measures, prints and writes the table.
func runRows(s *stage, o options, m *machine) error {
	var picked []row
	for _, r := range rows() {
		if o.rows.MatchString(r.title()) {
			picked = append(picked, r)
		}
	}
	if len(picked) == 0 {
		return fmt.Errorf("no row matches %q", o.rows)
	}
	p := newProgress(len(picked))
	defer p.clear()
	fmt.Printf("bench: %d rows, 3 proxies, %d rounds of %v: about %v\n", len(picked), o.rounds, o.length, estimate(picked, o).Round(time.Minute))
	f := figures{Machine: m}
	var others []float64
	fmt.Print(tableHead)
	for _, r := range picked {
		samples, err := measure(s, o, r, p)
		if err != nil {
			return fmt.Errorf("%s: %w", r.title(), err)
		}
		for _, s := range samples {
			others = append(others, s.Others)
		}
		f.Rounds = append(f.Rounds, samples...)
		f.Rows = append(f.Rows, judge(r.name, r.conns, r.goal, samples))
		p.clear()
		fmt.Print(f.Rows[len(f.Rows)-1].line())
		p.done++
	}
	m.end(others)
	fmt.Printf("\n%s\n\n%v\n", f.verdict(), m)
	if o.rows.String() != "" {
		fmt.Println("bench: not all rows were measured; nothing is written")
		return nil
	}
	if err := o.write("bench.json", f); err != nil {
		return err
	}
	return redraw(o.out)
}

const warmUp = 250 * time.Millisecond

// estimate of the time that rows take, from what a round needs besides what it counts.
func estimate(rows []row, o options) time.Duration {
	var sum time.Duration
	for _, r := range rows {
		sum += o.length + warmUp + 80*time.Millisecond
		if !r.both {
			sum += o.length*2/3 + warmUp + 80*time.Millisecond
		}
	}
	return sum * time.Duration(3*o.rounds)
}

// measure does all rounds of a row: first as fast as it goes, then at a fixed rate.
func measure(s *stage, o options, r row, p *progress) ([]sample, error) {
	to := setting{name: "rows", threads: 1, files: files(), needs: needed}
	if r.both {
		to.name, to.threads = "both", 2
	}
	if err := s.set(to); err != nil {
		return nil, err
	}
	jobs := map[string]load.Job{}
	for _, p := range s.peers {
		cookie, err := load.Check(r.job(p, ""))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		j := r.job(p, cookie)
		j.Warm, j.For = warmUp, o.length
		jobs[p.name] = j
	}
	var all []sample
	kinds := []string{"closed", "fixed"}
	if r.both {
		kinds = kinds[:1]
	}
	for _, kind := range kinds {
		rate := 0.0
		if kind == "fixed" {
			rate = max(leastRate, fixedShare*median(pick(all, "haproxy", "closed", (*sample).perSecond)))
		}
		for round := range o.rounds {
			for i := range s.peers {
				peer := s.peers[(i+round)%len(s.peers)]
				j := jobs[peer.name]
				if j.Rate = rate; rate > 0 {
					j.For = o.length * 2 / 3
				}
				p.show("%s, %s round %d/%d, %s", r.title(), kind, round+1, o.rounds, peer.name)
				got, err := s.run(peer.name, j)
				if err != nil {
					return nil, err
				}
				got.Row, got.Round = r.name, round+1
				if r.to != tcp && r.to != bulk { // the warm-up has lines too
					if err := s.awaitLines(&got); err != nil {
						return nil, err
					}
					got.Unlogged = got.Requests - min(got.Logged, got.Requests)
				}
				if r.resume && got.Resumed < got.Requests*9/10 {
					return nil, fmt.Errorf("%s: only %d of %d handshakes were resumed", peer.name, got.Resumed, got.Requests)
				}
				all = append(all, got)
			}
		}
	}
	return all, nil
}

// pick takes one figure of every round of a proxy, in the order of rounds.
func pick(all []sample, proxy, kind string, f func(*sample) float64) (v []float64) {
	for i := range all {
		if all[i].Proxy == proxy && all[i].Kind == kind {
			v = append(v, f(&all[i]))
		}
	}
	return v
}
