package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/skeinlb/skein/test/bench/load"
)

// curves are the cost of a request as something grows.
type curves struct {
	Machine *machine `json:"machine"`
	Curves  []curve  `json:"curves"`
	Rounds  []sample `json:"rounds"`
}

type curve struct {
	Name   string  `json:"name"`
	Axis   string  `json:"axis"`
	Points []point `json:"points"`
}

type point struct {
	X  int               `json:"x"`
	Us map[string]spread `json:"cpu_us"` // per request, by proxy
}

// growth is one curve: how the stage is set, and how it is asked, at x.
type growth struct {
	name, axis string
	at         []int
	files      func(x int) map[string]map[string]string // nil: as for the rows
	row        func(x int) row
}

var growths = []growth{
	{name: "connections", axis: "keep-alive connections", at: []int{1, 8, 64, 256, 1024, 4096, 8192}, row: func(x int) row {
		return row{conns: x, to: web, requests: []string{get("/b128")}, want: 128}
	}},
	{name: "routes by host", axis: "routes", at: []int{1, 10, 100, 1000, 10000}, files: func(x int) map[string]map[string]string {
		return many(x, manyHosts)
	}, row: func(x int) row {
		r := row{conns: 64, to: web, want: 128}
		for i := range min(x, 100) { // from the first to the last, evenly
			r.requests = append(r.requests, fmt.Sprintf("GET /b128 HTTP/1.1\r\nHost: h%d.example.com\r\n\r\n", x-1-i*x/min(x, 100)))
		}
		return r
	}},
	{name: "routes by path", axis: "routes", at: []int{1, 10, 100, 1000, 10000}, files: func(x int) map[string]map[string]string {
		return many(x, manyPaths)
	}, row: func(x int) row {
		r := row{conns: 64, to: web, want: 128}
		for i := range min(x, 100) {
			r.requests = append(r.requests, get(fmt.Sprintf("/p%d/b128", x-1-i*x/min(x, 100))))
		}
		return r
	}},
	{name: "servers", axis: "servers of the backend", at: []int{1, 10, 100, 1000}, files: func(x int) map[string]map[string]string {
		return many(x, manyServers)
	}, row: func(int) row {
		return row{conns: 64, to: web, requests: []string{get("/b128")}, want: 128}
	}},
}

// growing writes the part of the three configurations that grows: for HAProxy, skein and nginx, with what goes into nginx's http block.
type growing func(haproxy, skein, nginx *strings.Builder, x int) (maps string)

// many is the configuration of the rows up to their first frontend, and then a frontend that grows. Everybody gets what its
// documentation recommends for many of them: HAProxy a map, nginx a server or location each, skein a route each.
func many(x int, g growing) map[string]map[string]string {
	files := files()
	var h, s, n strings.Builder
	cut := func(b *strings.Builder, text, at string) {
		head, _, _ := strings.Cut(text, at)
		b.WriteString(head)
	}
	cut(&h, peerFile("haproxy.cfg"), "frontend web")
	cut(&s, peerFile("skein.hcl"), `frontend "web"`)
	cut(&n, peerFile("nginx.conf"), "    server {\n")
	maps := g(&h, &s, &n, x)
	n.WriteString("}\n")
	files["haproxy"]["haproxy.cfg"], files["haproxy"]["many.map"] = h.String(), maps
	files["skein"]["skein.hcl"] = s.String()
	files["nginx"]["nginx.conf"] = n.String()
	return files
}

const (
	haproxyFrontend = "frontend web\n    bind 127.0.0.1:8100 defer-accept\n    option forwardfor\n    default_backend web\n"
	haproxyBackend  = "backend web\n    server s1 127.0.0.1:8000\n"
	skeinFrontend   = "frontend \"web\" {\n  bind    = [\"127.0.0.1\"]\n  http    = 8200\n  backend = \"web\"\n"
	skeinBackend    = "}\nbackend \"web\" {\n  server \"s1\" { address = \"127.0.0.1:8000\" }\n}\n"
)

func manyHosts(h, s, n *strings.Builder, x int) string {
	var m strings.Builder
	h.WriteString(haproxyFrontend + "    use_backend %[req.hdr(host),lower,map(many.map,web)]\n" + haproxyBackend)
	s.WriteString(skeinFrontend)
	n.WriteString("    server_names_hash_max_size 262144;\n")
	for i := range x {
		fmt.Fprintf(&m, "h%d.example.com web\n", i)
		fmt.Fprintf(s, "  route \"r%d\" {\n    host    = \"h%d.example.com\"\n    backend = \"web\"\n  }\n", i, i)
		fmt.Fprintf(n, "    server {\n        listen 127.0.0.1:8300;\n        server_name h%d.example.com;\n        location / { proxy_pass http://web; }\n    }\n", i)
	}
	s.WriteString(skeinBackend)
	return m.String()
}

func manyPaths(h, s, n *strings.Builder, x int) string {
	var m strings.Builder
	h.WriteString(haproxyFrontend + "    use_backend %[path,map_beg(many.map,web)]\n" + haproxyBackend)
	s.WriteString(skeinFrontend)
	n.WriteString("    server {\n        listen 127.0.0.1:8300;\n")
	for i := range x {
		fmt.Fprintf(&m, "/p%d/ web\n", i)
		fmt.Fprintf(s, "  route \"r%d\" {\n    path    = \"/p%d/*\"\n    backend = \"web\"\n  }\n", i, i)
		fmt.Fprintf(n, "        location /p%d/ { proxy_pass http://web; }\n", i)
	}
	n.WriteString("    }\n")
	s.WriteString(skeinBackend)
	return m.String()
}

func manyServers(h, s, n *strings.Builder, x int) string {
	h.WriteString(haproxyFrontend + "backend web\n    default-server check inter 60s\n")
	s.WriteString(skeinFrontend + "}\nbackend \"web\" {\n  check \"http\" {\n    path     = \"/health\"\n    interval = \"60s\"\n  }\n")
	n.WriteString("    upstream many {\n        keepalive 1024;\n        keepalive_requests 1000000000;\n")
	for i := range x {
		addr := fmt.Sprintf("127.0.%d.%d:%d", i/250, 1+i%250, originPort)
		fmt.Fprintf(h, "    server s%d %s\n", i, addr)
		fmt.Fprintf(s, "  server \"s%d\" { address = \"%s\" }\n", i, addr)
		fmt.Fprintf(n, "        server %s;\n", addr)
	}
	s.WriteString("}\n")
	n.WriteString("    }\n    server {\n        listen 127.0.0.1:8300 deferred;\n        location / { proxy_pass http://many; }\n    }\n")
	return ""
}

// runScale measures all curves.
func runScale(s *stage, o options, m *machine) error {
	c := curves{Machine: m}
	p := newProgress(0)
	defer p.clear()
	var picked []growth
	for _, g := range growths {
		if o.rows.MatchString(g.name) {
			picked = append(picked, g)
			p.of += len(g.at)
		}
	}
	fmt.Printf("bench: %d points, 3 proxies, %d rounds of %v: about %v\n", p.of, o.rounds, o.length,
		(time.Duration(p.of*3*o.rounds) * (o.length + warmUp + 200*time.Millisecond)).Round(time.Minute))
	var others []float64
	for _, g := range picked {
		line := curve{Name: g.name, Axis: g.axis}
		for _, x := range g.at {
			samples, err := g.measure(s, o, x, p)
			if err != nil {
				return fmt.Errorf("%s, %d: %w", g.name, x, err)
			}
			us := map[string]spread{}
			for _, peer := range s.peers {
				us[peer.name] = spreadOf(pick(samples, peer.name, "closed", (*sample).us))
			}
			for _, s := range samples {
				others = append(others, s.Others)
			}
			line.Points = append(line.Points, point{x, us})
			c.Rounds = append(c.Rounds, samples...)
			p.done++
		}
		p.clear()
		c.Curves = append(c.Curves, line)
		fmt.Println(line.table())
	}
	m.end(others)
	fmt.Println(m)
	if o.rows.String() != "" {
		fmt.Println("bench: not all curves were measured; nothing is written")
		return nil
	}
	if err := o.write("scale.json", c); err != nil {
		return err
	}
	return redraw(o.out)
}

func (g growth) measure(s *stage, o options, x int, p *progress) ([]sample, error) {
	to := setting{name: "rows", threads: 1, files: files(), needs: needed}
	if g.files != nil {
		to = setting{name: fmt.Sprintf("%s %d", g.name, x), threads: 1, files: g.files(x), needs: []service{web}}
	}
	if err := s.set(to); err != nil {
		return nil, err
	}
	r := g.row(x)
	for _, peer := range s.peers {
		if _, err := load.Check(r.job(peer, "")); err != nil {
			return nil, fmt.Errorf("%s: %w", peer.name, err)
		}
	}
	var all []sample
	for round := range o.rounds {
		for i := range s.peers {
			peer := s.peers[(i+round)%len(s.peers)]
			j := r.job(peer, "")
			turn := time.Duration(r.conns) * 100 * time.Microsecond // all of the connections are answered once in that
			j.Warm, j.For = warmUp+turn, max(o.length, turn)
			if g.name == "servers" {
				j.Warm += time.Second // a connection to each
			}
			p.show("%d %s, round %d/%d, %s", x, g.axis, round+1, o.rounds, peer.name)
			got, err := s.run(peer.name, j)
			if err != nil {
				return nil, err
			}
			if got.Errors > 0 {
				return nil, fmt.Errorf("%s: %d errors", peer.name, got.Errors)
			}
			got.Row, got.Round = fmt.Sprintf("%s %d", g.name, x), round+1
			all = append(all, got)
		}
	}
	return all, nil
}

// table has a line per point: the cost of a request in microseconds of CPU, and skein's share of HAProxy's.
func (c curve) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s | HAProxy us | skein us | nginx us | skein / HAProxy |\n|---|---|---|---|---|\n", c.Axis)
	for _, p := range c.Points {
		h, s, n := p.Us["haproxy"], p.Us["skein"], p.Us["nginx"]
		fmt.Fprintf(&b, "| %d | %.2f [%.2f..%.2f] | %.2f [%.2f..%.2f] | %.2f [%.2f..%.2f] | %.2f |\n", p.X, h.Median, h.Q1, h.Q3, s.Median, s.Q1, s.Q3,
			n.Median, n.Q1, n.Q3, s.Median/h.Median)
	}
	return b.String()
}

func (c curves) table() string {
	var b strings.Builder
	for _, line := range c.Curves {
		fmt.Fprintf(&b, "%s:\n\n%s\n", strings.ToUpper(line.Name[:1])+line.Name[1:], line.table())
	}
	return b.String()
}
