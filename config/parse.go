package config

import (
	"fmt"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Parse reads a cluster's configuration. It reports all mistakes of the file in one run; the *Config is nil exactly when one of
// them is an error.
func Parse(file string, src []byte) (*Config, Diagnostics) {
	p := newParser(file, src)
	c := p.run()
	p.diags.sort()
	if p.diags.HasErrors() {
		return nil, p.diags
	}
	return c, p.diags
}

// parser turns a syntax tree into a Config. What one block says is checked where it is read; what several say together is noted
// here and checked in the end (validate.go).
type parser struct {
	*source
	config   *Config
	defaults defaults

	// What validate needs to know beyond config.
	ranges     map[any]hcl.Range // an object's header, for what is said about it as a whole
	references []reference
	listeners  []listener
	explicit   []explicit
	limited    []limited
	groups     map[string]ranking // by group
	hashed     []hashed
}

func newParser(file string, src []byte) *parser {
	return &parser{
		source:   newSource(file, src),
		config:   &Config{Text: append([]byte(nil), src...)},
		defaults: factory(),
		ranges:   map[any]hcl.Range{},
		groups:   map[string]ranking{},
	}
}

// defaults is what a block that leaves something out gets. `defaults` blocks change it for what follows.
type defaults struct {
	frontend FrontendTimeouts
	minRate  MinRate
	caps     Caps
	backend  BackendTimeouts
	balance  Balance
	retries  Retries
	check    *Check // nil: backends that say nothing are not checked
	probe    probeTiming
}

// probeTiming is the part of a check that is inherited by every check, of whatever kind.
type probeTiming struct {
	interval, timeout time.Duration
	timeoutSet        bool // somebody wrote the timeout; else it is never longer than the interval
	rise, fall        int
}

// factory are the defaults of a file that changes none. docs/configuration.md gives the reasons to operators.
func factory() defaults {
	return defaults{
		frontend: FrontendTimeouts{
			Headers: 10 * time.Second, // enough for a phone on a bad link; bounds what a slow client can occupy
			Client:  60 * time.Second, // like nginx; a stream without progress for a minute is dead more often than slow
			Idle:    60 * time.Second, // browsers reuse a connection within a minute or not at all

			Handshake: 10 * time.Second, // as for a head: two round trips, and a lost packet or two
		},
		minRate: MinRate{Request: 500, Response: 500, Grace: 5 * time.Second}, // a tenth of what a bad phone link carries
		caps:    Caps{Head: 32 << 10, Headers: 128},
		backend: BackendTimeouts{
			Connect:  5 * time.Second,  // survives one lost SYN (1 s) and a second one (2 s more)
			Response: 60 * time.Second, // the longest that a person waits for a page
			Server:   60 * time.Second, // as for the client
			Idle:     30 * time.Second, // below what servers use (nginx 75 s, Apache excepted), so that they rarely close first
		},
		balance: RoundRobin,
		retries: Retries{Attempts: retryAttempts, On: []string{"connect"}, Budget: retryBudget},
		probe:   probeTiming{interval: 2 * time.Second, timeout: time.Second, rise: 2, fall: 3},
	}
}

func (p *parser) run() *Config {
	tree := p.parse()
	if tree == nil {
		return nil
	}
	top := &body{source: p.source, kind: "file", what: "the configuration", body: tree, header: tree.SrcRange}
	for _, name := range []string{"vip", "list", "limit", "frontend", "backend", "defaults"} {
		top.all(name)
	}
	if l := top.plain("log"); l != nil {
		p.log(l)
	}
	if c := top.plain("cluster"); c != nil {
		p.cluster(c)
	}
	top.misplaced("certificate", "certificates do not stand in the configuration",
		"import it with `skein cert import NAME FILE...`, and name it in a frontend: certificates = [\"NAME\"]")
	for _, word := range []string{"name", "data_dir", "advertise", "port", "interface", "role"} {
		if top.has(word) {
			top.misplaced(word, fmt.Sprintf("%q belongs to one host, not to the cluster", word), "write it into that host's node.hcl")
		}
	}
	top.misplaced("pair", `"pair" stands in a block of its own`, `write cluster { pair = "tiebreak" }`)
	top.done()
	// In written order: a defaults block speaks for what follows it.
	for _, c := range tree.Blocks {
		switch c.Type {
		case "vip":
			p.vip(c)
		case "list":
			p.list(c)
		case "limit":
			p.limit(c)
		case "frontend":
			p.frontend(c)
		case "backend":
			p.backend(c)
		case "defaults":
			p.readDefaults(c)
		}
	}
	p.validate()
	return p.config
}

func (p *parser) readDefaults(c *hclsyntax.Block) {
	p.noLabels(c)
	b := p.read(c, "defaults")
	d := &p.defaults
	p.balance(b, &d.balance, false)
	p.minRate(b, &d.minRate)
	p.caps(b, &d.caps, true)
	if t := b.plain("timeouts"); t != nil {
		t.kind = "defaults timeouts"
		t.frontendTimeouts(&d.frontend, true)
		t.timeout("handshake", &d.frontend.Handshake)
		t.backendTimeouts(&d.backend, "server_idle")
		t.done()
	}
	if check := p.check(b, true); check != nil {
		d.check = check
	}
	b.done()
}

// The bounds of every timeout. What is longer than a week is a typing error.
const (
	minTimeout = time.Millisecond
	maxTimeout = 7 * 24 * time.Hour
)

func (b *body) timeout(name string, d *time.Duration) {
	if e := b.attr(name); e != nil {
		if v, ok := b.duration(e, fmt.Sprintf("%q", name), minTimeout, maxTimeout); ok {
			*d = v
		}
	}
}

func (b *body) frontendTimeouts(t *FrontendTimeouts, http bool) {
	if http {
		b.timeout("headers", &t.Headers)
		b.timeout("idle", &t.Idle)
	} else {
		for _, word := range []string{"headers", "idle"} {
			b.misplaced(word, fmt.Sprintf("%q means nothing for tcp", word), `tcp knows only "client"`)
		}
	}
	b.timeout("client", &t.Client)
}

func (b *body) backendTimeouts(t *BackendTimeouts, idle string) {
	b.timeout("connect", &t.Connect)
	b.timeout("response", &t.Response)
	b.timeout("server", &t.Server)
	b.timeout(idle, &t.Idle)
}
