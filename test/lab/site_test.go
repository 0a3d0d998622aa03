package lab

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
)

// site is a configuration that grows and shrinks at random, from a seed, and that always can serve every client of the tests: each
// backend keeps a server that takes new clients. Its fields are exported for clone only.
type site struct {
	Head   string // what comes before the first frontend
	On     string // where frontends listen
	Direct string // where the frontend listens that reaches each node past the VIP; "": there is none
	Web    map[string]netip.AddrPort
	Echo   map[string]netip.AddrPort
	Fixed  netip.AddrPort // the echo server behind the frontend that never changes

	Number int // of changes so far; the site answers with it at /number
	Shop   pool
	API    pool
	Lines  pool
	Routes []rule
	Extras []extra
	Tuning tuning
	Named  int // routes so far
}

// pool is a backend.
type pool struct {
	Name    string
	Balance string
	Sticky  string // a block, or ""
	Check   string
	Retries int
	Connect int // seconds
	Servers []member
}

// member is a server of a pool, with what was set of it at run time.
type member struct {
	Name   string
	Weight int
	Max    int
	Backup bool
	Drain  bool
	Set    int // the weight set at run time; -1: none
}

func (m member) usable() bool {
	w := m.Weight
	if m.Set >= 0 {
		w = m.Set
	}
	return w > 0 && !m.Backup && !m.Drain
}

// rule is a route. Those with a status are answered by skein itself, at a path of their own.
type rule struct {
	Name   string
	Match  []string
	All    bool   // it matches every request of the clients
	Status int    // of a response of skein's own at /rules/NAME; 0: to Pool
	Pool   string // a backend
}

// extra is a listener that comes and goes: a frontend of its own, or one more port of the frontend "shop".
type extra struct {
	Port uint16
	Mode string // "http", "tcp" or "shop"
}

// tuning is what else can be said of the frontend "shop".
type tuning struct {
	Headers int // edits
	Idle    int // seconds
	Client  int // seconds
}

// change is one step from a site to the next.
type change struct {
	What   string
	Next   *site
	Opens  *extra   // clients may come once it is in force
	Closes *extra   // clients must have gone before
	Admin  *setting // nil: the text changes
}

// setting is what an operator sets of a server at run time.
type setting struct {
	Backend, Server string
	State           string // "": stays
	Weight          int    // -1: stays
}

func newSite(head, on, direct string, web, echo map[string]netip.AddrPort, fixed netip.AddrPort) *site {
	s := &site{Head: head, On: on, Direct: direct, Web: web, Echo: echo, Fixed: fixed}
	fill := func(name, balance, check string, servers map[string]netip.AddrPort) pool {
		p := pool{Name: name, Balance: balance, Check: check, Retries: 2, Connect: 5}
		for _, n := range slices.Sorted(maps.Keys(servers))[:len(servers)/2+1] {
			p.Servers = append(p.Servers, member{Name: n, Weight: 1, Set: -1})
		}
		return p
	}
	s.Shop = fill("shop", "least_conn", checks[0], web)
	s.API = fill("api", "round_robin", checks[1], web)
	s.Lines = fill("lines", "round_robin", checks[1], echo)
	s.Tuning = tuning{Idle: 30, Client: 60}
	return s
}

// checks have long time-outs: on a busy machine a probe may be late, and that is not what is tested.
var checks = []string{
	"check \"http\" {\n    path     = \"/healthz\"\n    interval = \"2s\"\n    timeout  = \"2s\"\n  }",
	"check \"tcp\" {\n    interval = \"2s\"\n    timeout  = \"2s\"\n  }",
	"check \"none\" {}",
}

func (s *site) clone() *site {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // plain data
	}
	var c site
	if err := json.Unmarshal(b, &c); err != nil {
		panic(err)
	}
	return &c
}

// whole reports whether every backend can take new clients.
func (s *site) whole() bool {
	for _, p := range []pool{s.Shop, s.API, s.Lines} {
		if !slices.ContainsFunc(p.Servers, member.usable) {
			return false
		}
	}
	return true
}

// serves reports whether some backend of the site has the server.
func (s *site) serves(server string) bool {
	for _, p := range []pool{s.Shop, s.API, s.Lines} {
		if slices.ContainsFunc(p.Servers, func(m member) bool { return m.Name == server }) {
			return true
		}
	}
	return false
}

// answer is the status of an answer to the path /rules/NAME of the frontend "shop".
func (s *site) answer(name string) int {
	for _, r := range s.Routes {
		switch {
		case r.All:
			return 200
		case r.Status != 0 && r.Name == name:
			return r.Status
		}
	}
	return 200
}

// text writes the site as a configuration.
func (s *site) text() string {
	var b strings.Builder
	b.WriteString(s.Head)
	ports := []string{"80"}
	for _, x := range s.Extras {
		if x.Mode == "shop" {
			ports = append(ports, fmt.Sprint(x.Port))
		}
	}
	fmt.Fprintf(&b, "frontend \"shop\" {\n  %s\n  http    = [%s]\n  backend = \"shop\"\n", s.On, strings.Join(ports, ", "))
	fmt.Fprintf(&b, "  timeouts {\n    idle   = \"%ds\"\n    client = \"%ds\"\n  }\n", s.Tuning.Idle, s.Tuning.Client)
	if n := s.Tuning.Headers; n > 0 {
		fmt.Fprintf(&b, "  request_headers {\n    set    = { X-Edit = \"%d\" }\n    remove = [\"X-Debug\"]\n  }\n", n)
		fmt.Fprintf(&b, "  response_headers { add = { X-Answer = \"%d\" } }\n", n)
	}
	fmt.Fprintf(&b, "  route \"number\" {\n    path = \"/number\"\n    respond {\n      status = 200\n      body   = \"%d\"\n    }\n  }\n", s.Number)
	for _, r := range s.Routes {
		fmt.Fprintf(&b, "  route %q {\n", r.Name)
		for _, m := range r.Match {
			fmt.Fprintf(&b, "    %s\n", m)
		}
		if r.Status != 0 {
			fmt.Fprintf(&b, "    respond { status = %d }\n  }\n", r.Status)
		} else {
			fmt.Fprintf(&b, "    backend = %q\n  }\n", r.Pool)
		}
	}
	b.WriteString("}\n")
	if s.Direct != "" {
		fmt.Fprintf(&b, "frontend \"direct\" {\n  %s\n  http    = %d\n  backend = \"api\"\n", s.Direct, directPort)
		fmt.Fprintf(&b, "  route \"number\" {\n    path = \"/number\"\n    respond {\n      status = 200\n      body   = \"%d\"\n    }\n  }\n}\n", s.Number)
	}
	fmt.Fprintf(&b, "frontend \"fixed\" {\n  %s\n  tcp     = %d\n  backend = \"fixed\"\n}\n", s.On, fixedPort)
	fmt.Fprintf(&b, "backend \"fixed\" {\n  check \"tcp\" {}\n  server \"fixed\" { address = %q }\n}\n", s.Fixed)
	fmt.Fprintf(&b, "frontend \"lines\" {\n  %s\n  tcp     = %d\n  backend = \"lines\"\n}\n", s.On, linesPort)
	for _, x := range s.Extras {
		switch x.Mode {
		case "http":
			fmt.Fprintf(&b, "frontend \"extra%d\" {\n  %s\n  http    = %d\n  backend = \"api\"\n}\n", x.Port, s.On, x.Port)
		case "tcp":
			fmt.Fprintf(&b, "frontend \"extra%d\" {\n  %s\n  tcp     = %d\n  backend = \"lines\"\n}\n", x.Port, s.On, x.Port)
		}
	}
	for _, p := range []pool{s.Shop, s.API, s.Lines} {
		addrs := s.Web
		fmt.Fprintf(&b, "backend %q {\n  balance = %q\n  %s\n", p.Name, p.Balance, p.Check)
		if p.Name == "lines" {
			addrs = s.Echo
			fmt.Fprintf(&b, "  timeouts { connect = \"%ds\" }\n", p.Connect)
		} else {
			fmt.Fprintf(&b, "  timeouts {\n    connect  = \"%ds\"\n    response = \"%ds\"\n  }\n", p.Connect, 4*p.Connect)
		}
		fmt.Fprintf(&b, "  retries { attempts = %d }\n", p.Retries)
		if p.Sticky != "" {
			fmt.Fprintf(&b, "  %s\n", p.Sticky)
		}
		for _, m := range p.Servers {
			fmt.Fprintf(&b, "  server %q {\n    address         = %q\n    weight          = %d\n    max_connections = %d\n    backup          = %v\n  }\n",
				m.Name, addrs[m.Name], m.Weight, m.Max, m.Backup)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// change makes one change at random. The text of the result is always another one, for it carries the number of the change.
func (s *site) change(r *rand.Rand, admin bool) change {
	kinds := []func(*site, *rand.Rand) (change, bool){
		(*site).addServer, (*site).addServer, (*site).removeServer, (*site).removeServer, (*site).weigh, (*site).weigh,
		(*site).addRoute, (*site).addRoute, (*site).removeRoute, (*site).moveRoute,
		(*site).addListener, (*site).addListener, (*site).removeListener, (*site).removeListener,
		(*site).rebalance, (*site).stick, (*site).recheck, (*site).limit, (*site).tune, (*site).retry,
	}
	if admin {
		kinds = append(kinds, (*site).drain, (*site).drain, (*site).enable, (*site).setWeight)
	}
	for {
		next := s.clone()
		c, ok := kinds[r.IntN(len(kinds))](next, r)
		if !ok || !next.whole() {
			continue
		}
		if c.Admin == nil {
			next.Number++
		}
		c.Next = next
		return c
	}
}

func (s *site) pool(r *rand.Rand) *pool { return []*pool{&s.Shop, &s.API, &s.Lines}[r.IntN(3)] }

func (s *site) member(r *rand.Rand) (*pool, *member) {
	p := s.pool(r)
	return p, &p.Servers[r.IntN(len(p.Servers))]
}

func (s *site) addServer(r *rand.Rand) (change, bool) {
	p := s.pool(r)
	addrs := s.Web
	if p.Name == "lines" {
		addrs = s.Echo
	}
	var free []string
	for _, n := range slices.Sorted(maps.Keys(addrs)) {
		if !slices.ContainsFunc(p.Servers, func(m member) bool { return m.Name == n }) {
			free = append(free, n)
		}
	}
	if len(free) == 0 {
		return change{}, false
	}
	n := free[r.IntN(len(free))]
	p.Servers = slices.Insert(p.Servers, r.IntN(len(p.Servers)+1), member{Name: n, Weight: 1 + r.IntN(4), Set: -1})
	return change{What: fmt.Sprintf("add server %s/%s", p.Name, n)}, true
}

func (s *site) removeServer(r *rand.Rand) (change, bool) {
	p := s.pool(r)
	i := r.IntN(len(p.Servers))
	n := p.Servers[i].Name
	p.Servers = slices.Delete(p.Servers, i, i+1)
	return change{What: fmt.Sprintf("remove server %s/%s", p.Name, n)}, true
}

func (s *site) weigh(r *rand.Rand) (change, bool) {
	p, m := s.member(r)
	m.Weight = r.IntN(10) // 0 among them
	return change{What: fmt.Sprintf("weight of %s/%s is %d", p.Name, m.Name, m.Weight)}, true
}

func (s *site) limit(r *rand.Rand) (change, bool) {
	p, m := s.member(r)
	if r.IntN(2) == 0 {
		m.Backup = !m.Backup
		return change{What: fmt.Sprintf("backup of %s/%s is %v", p.Name, m.Name, m.Backup)}, true
	}
	m.Max = []int{0, 300, 600}[r.IntN(3)]
	return change{What: fmt.Sprintf("max_connections of %s/%s is %d", p.Name, m.Name, m.Max)}, true
}

func (s *site) addRoute(r *rand.Rand) (change, bool) {
	if len(s.Routes) >= 40 {
		return change{}, false
	}
	s.Named++
	name := fmt.Sprintf("r%d", s.Named)
	rt := rule{Name: name, Pool: []string{"shop", "api"}[r.IntN(2)]}
	switch r.IntN(6) {
	case 0:
		rt.Match = []string{`host = ["api.example.com", "*.api.example.com"]`}
	case 1:
		rt.Match = []string{`path = ["/api", "/api/*"]`}
	case 2:
		rt.Match = []string{`when = starts_with(path, "/wait/") && method != "POST"`}
	case 3:
		rt.All = true
		rt.Match = []string{`method = ["GET"]`, `header = { user-agent = "skein-lab" }`}
	case 4:
		rt.All = true
		rt.Match = []string{fmt.Sprintf(`when = in_cidr(client, "198.18.0.0/24") || header["x-n"] == "%d"`, r.IntN(100))}
	case 5:
		rt = rule{Name: name, Match: []string{fmt.Sprintf(`path = "/rules/%s"`, name)}, Status: []int{403, 410, 418}[r.IntN(3)]}
	}
	s.Routes = slices.Insert(s.Routes, r.IntN(len(s.Routes)+1), rt)
	return change{What: fmt.Sprintf("add route %s: %s", name, strings.Join(rt.Match, ", "))}, true
}

func (s *site) removeRoute(r *rand.Rand) (change, bool) {
	if len(s.Routes) == 0 {
		return change{}, false
	}
	i := r.IntN(len(s.Routes))
	n := s.Routes[i].Name
	s.Routes = slices.Delete(s.Routes, i, i+1)
	return change{What: "remove route " + n}, true
}

func (s *site) moveRoute(r *rand.Rand) (change, bool) {
	if len(s.Routes) < 2 {
		return change{}, false
	}
	i := r.IntN(len(s.Routes))
	rt := s.Routes[i]
	s.Routes = slices.Insert(slices.Delete(s.Routes, i, i+1), r.IntN(len(s.Routes)), rt)
	return change{What: "move route " + rt.Name}, true
}

// addListener takes a low free port, so that ports come back, in another role maybe.
func (s *site) addListener(r *rand.Rand) (change, bool) {
	if len(s.Extras) >= 4 {
		return change{}, false
	}
	x := extra{Port: extraPort, Mode: []string{"http", "tcp", "shop"}[r.IntN(3)]}
	for slices.ContainsFunc(s.Extras, func(o extra) bool { return o.Port == x.Port }) {
		x.Port++
	}
	s.Extras = append(s.Extras, x)
	return change{What: fmt.Sprintf("add listener %d (%s)", x.Port, x.Mode), Opens: &x}, true
}

func (s *site) removeListener(r *rand.Rand) (change, bool) {
	if len(s.Extras) == 0 {
		return change{}, false
	}
	i := r.IntN(len(s.Extras))
	x := s.Extras[i]
	s.Extras = slices.Delete(s.Extras, i, i+1)
	return change{What: fmt.Sprintf("remove listener %d (%s)", x.Port, x.Mode), Closes: &x}, true
}

func (s *site) rebalance(r *rand.Rand) (change, bool) {
	p := s.pool(r)
	p.Balance = []string{"round_robin", "least_conn", "source_hash"}[r.IntN(3)]
	return change{What: fmt.Sprintf("balance of %s is %s", p.Name, p.Balance)}, true
}

func (s *site) stick(r *rand.Rand) (change, bool) {
	p := s.pool(r)
	blocks := []string{"", "sticky \"table\" {\n    key = client\n    ttl = \"1m\"\n  }"}
	if p.Name != "lines" {
		blocks = append(blocks, `sticky "cookie" { name = "LAB" }`)
	}
	p.Sticky = blocks[r.IntN(len(blocks))]
	return change{What: fmt.Sprintf("stickiness of %s is %.15q", p.Name, p.Sticky)}, true
}

func (s *site) recheck(r *rand.Rand) (change, bool) {
	p := s.pool(r)
	n := len(checks)
	if p.Name == "lines" {
		p.Check = checks[1+r.IntN(n-1)]
	} else {
		p.Check = checks[r.IntN(n)]
	}
	return change{What: fmt.Sprintf("check of %s is %.12q", p.Name, p.Check)}, true
}

func (s *site) tune(r *rand.Rand) (change, bool) {
	s.Tuning = tuning{Headers: r.IntN(5), Idle: 10 + r.IntN(50), Client: 30 + r.IntN(60)}
	return change{What: fmt.Sprintf("frontend shop has %+v", s.Tuning)}, true
}

func (s *site) retry(r *rand.Rand) (change, bool) {
	p := s.pool(r)
	p.Retries, p.Connect = r.IntN(4), 3+r.IntN(5)
	return change{What: fmt.Sprintf("backend %s retries %d times, connect %ds", p.Name, p.Retries, p.Connect)}, true
}

func (s *site) drain(r *rand.Rand) (change, bool) {
	p, m := s.member(r)
	if m.Drain {
		return change{}, false
	}
	m.Drain = true
	return change{What: fmt.Sprintf("drain %s/%s", p.Name, m.Name), Admin: &setting{p.Name, m.Name, "drain", -1}}, true
}

func (s *site) enable(r *rand.Rand) (change, bool) {
	p, m := s.member(r)
	if !m.Drain {
		return change{}, false
	}
	m.Drain = false
	return change{What: fmt.Sprintf("enable %s/%s", p.Name, m.Name), Admin: &setting{p.Name, m.Name, "enabled", -1}}, true
}

func (s *site) setWeight(r *rand.Rand) (change, bool) {
	p, m := s.member(r)
	m.Set = r.IntN(5)
	return change{What: fmt.Sprintf("set the weight of %s/%s to %d", p.Name, m.Name, m.Set), Admin: &setting{p.Name, m.Name, "", m.Set}}, true
}
