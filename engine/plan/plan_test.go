package plan

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/h1"
	"github.com/skeinlb/skein/internal/golden"
	"github.com/skeinlb/skein/internal/race"
)

// parse returns a valid configuration or ends the test.
func parse(t testing.TB, text string) *config.Config {
	t.Helper()
	c, diags := config.Parse("test.hcl", []byte(text))
	if diags.HasErrors() {
		t.Fatalf("the test's configuration:\n%v", diags)
	}
	return c
}

func compile(t testing.TB, text string, old *Plan) *Plan {
	t.Helper()
	p, err := Compile(parse(t, text), old)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// request parses a request head of the form "GET host /target" and further field lines.
func request(t testing.TB, line string, fields ...string) *h1.Request {
	t.Helper()
	w := strings.Fields(line)
	text := w[0] + " " + w[2] + " HTTP/1.1\r\nHost: " + w[1] + "\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"
	var q h1.Request
	if e := q.Parse([]byte(text), h1.Limits{}); e != h1.OK || q.N != len(text) {
		t.Fatalf("%q: %v", text, e)
	}
	return &q
}

// Each transcript is a configuration with one frontend, "====", and requests with what is done with them.
func TestRoutes(t *testing.T) {
	golden.Each(t, "testdata/routes/*.txt", 2, func(t *testing.T, src string) string {
		text, requests, ok := strings.Cut(src, "====\n")
		if !ok {
			t.Fatal("the transcript has no ==== after its configuration")
		}
		f := compile(t, text, nil).Frontends[0]
		var s Scratch
		out := text + "====\n"
		for i, block := range strings.Split(strings.TrimSpace(requests), "\n\n") {
			ask, _, _ := strings.Cut(block, "----")
			var line string
			var fields []string
			client := netip.MustParseAddr("203.0.113.9")
			for _, l := range strings.Split(strings.TrimSpace(ask), "\n") {
				switch {
				case l[0] == '#':
				case strings.HasPrefix(l, "from "):
					client = netip.MustParseAddr(l[5:])
				case line == "":
					line = l
				default:
					fields = append(fields, l)
				}
			}
			if i > 0 {
				out += "\n"
			}
			out += ask + "----\n" + describe(f.Route(request(t, line, fields...), client, &s)) + "\n"
		}
		return out
	})
}

func describe(a *Action) string {
	if a.Backend != nil {
		return fmt.Sprintf("%s: backend %s", a.Name, a.Backend.Name)
	}
	var r h1.Response
	if r.Parse(a.Reply.Append(nil, false, 1, false, nil), false, h1.Limits{}); r.Header("location") != nil {
		return fmt.Sprintf("%s: %d to %s", a.Name, r.Status, r.Header("location"))
	}
	return fmt.Sprintf("%s: %d %q", a.Name, r.Status, a.Reply.Body)
}

const two = `
frontend "f" {
  bind    = ["127.0.0.1"]
  http    = [8080, 8081]
  backend = "b"
}
frontend "db" {
  bind    = ["127.0.0.1"]
  tcp     = 5432
  backend = "pg"
}
backend "b" {
  server "s1" { address = "198.18.1.1:80" }
  server "s2" { address = "198.18.1.2:80" }
  server "s3" { address = "198.18.1.3:80" }
}
backend "pg" {
  server "s1" { address = "198.18.1.1:80" }
}
`

func TestReloadKeepsWhatStayed(t *testing.T) {
	old := compile(t, two, nil)
	b := old.Backend("b")
	for i, s := range b.Servers {
		s.Active.Store(int64(10 + i))
		s.Stats.Loop(3).Requests.Add(uint64(20 + i))
	}
	b.Server("s1").Usable.Store(false)
	b.Server("s2").WeightOverride.Store(7)
	b.Server("s3").Admin.Store(uint32(Drain))
	b.Stats.Loop(0).Requests.Add(99)
	old.Frontend("f").Stats.Loop(1).Connections.Add(98)

	// s1 moves down and gets a weight, s2 gets another address, s3 stays, s4 is new; pg has a server of the same name and address
	// as one of b, which is another server all the same.
	text := strings.Replace(two, `server "s1" { address = "198.18.1.1:80" }
  server "s2" { address = "198.18.1.2:80" }
  server "s3" { address = "198.18.1.3:80" }`, `server "s2" { address = "198.18.1.9:80" }
  server "s4" { address = "198.18.1.4:80" }
  server "s3" { address = "198.18.1.3:80" }
  server "s1" {
    address = "198.18.1.1:80"
    weight  = 5
  }`, 1)
	p := compile(t, text, old)
	n := p.Backend("b")
	var got strings.Builder
	for _, s := range n.Servers {
		fmt.Fprintf(&got, "%s index=%d weight=%d effective=%d usable=%v admin=%v active=%d requests=%d\n", s.Name, s.Index, s.Weight,
			s.EffectiveWeight(), s.Usable.Load(), Admin(s.Admin.Load()), s.Active.Load(), s.Stats.Totals().Requests)
	}
	want := `s2 index=0 weight=1 effective=1 usable=true admin=enabled active=0 requests=0
s4 index=1 weight=1 effective=1 usable=true admin=enabled active=0 requests=0
s3 index=2 weight=1 effective=1 usable=true admin=drain active=12 requests=22
s1 index=3 weight=5 effective=5 usable=false admin=enabled active=10 requests=20
`
	if got.String() != want {
		t.Errorf("after the reload:\n%swant:\n%s", got.String(), want)
	}
	if w := b.Server("s1").Weight; w != 1 {
		t.Errorf("the old plan's s1 has weight %d now", w)
	}
	if p.Backend("pg").Servers[0].Live == n.Server("s1").Live {
		t.Error("servers of two backends share their state")
	}
	if p.Backend("pg").Servers[0].Live != old.Backend("pg").Servers[0].Live {
		t.Error("the server of pg lost its state")
	}
	if n.Stats.Totals().Requests != 99 || p.Frontend("f").Stats.Totals().Connections != 98 {
		t.Error("counters of the backend or the frontend were lost")
	}
	gone := p.Dropped(old)
	if len(gone) != 1 || gone[0].Name != "s2" || gone[0].Addr.String() != "198.18.1.2:80" {
		t.Errorf("dropped: %v", gone)
	}
	if p.Dropped(nil) != nil || len(p.Dropped(p)) != 0 {
		t.Error("nothing, or a plan itself, has something to drop")
	}
}

// A configuration that was not checked by config.Parse, or that only the engine can find fault with.
func TestCompileReportsAllThatItCannotDo(t *testing.T) {
	addr := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	edit := func(name, value string) config.HeaderEdits {
		return config.HeaderEdits{Set: []config.Header{{Name: name, Value: value}}}
	}
	c := &config.Config{Frontends: []*config.Frontend{
		{Name: "a", Mode: config.HTTP, Bind: addr, Ports: []uint16{80}, Backend: "none"},
		{Name: "b", Mode: config.HTTP, Bind: addr, Ports: []uint16{80}, RequestHeaders: edit("Content-Length", "5")},
		{Name: "c", Mode: config.HTTP, Bind: addr, Ports: []uint16{81}, ResponseHeaders: edit("X", "a\r\nY: b")},
		{Name: "d", Mode: config.HTTP, Bind: addr, Ports: []uint16{82}, ResponseHeaders: edit("X Y", "")},
		{Name: "e", Mode: config.HTTP, Bind: addr, Ports: []uint16{83}, Routes: []*config.Route{
			{Name: "r", When: &config.Cond{Op: config.InCIDR, Left: config.Operand{Field: config.FieldPath}}, Respond: &config.Respond{Status: 200}},
			{Name: "s", When: &config.Cond{Op: config.Equal, Left: config.Operand{Field: config.FieldClient}, Value: "x"}, Respond: &config.Respond{Status: 200}},
			{Name: "t", When: &config.Cond{Op: 99, Left: config.Operand{Field: config.FieldPath}}, Respond: &config.Respond{Status: 200}},
			{Name: "u", Respond: &config.Respond{Status: 200, Body: "x", ContentType: "a\nb"}},
		}},
		{Name: "f", Mode: config.HTTP, Bind: addr, Ports: []uint16{84}},
		{Name: "g", Mode: config.HTTP, Bind: addr, Ports: []uint16{84}},
	}}
	_, err := Compile(c, nil)
	want := `frontend "a": there is no backend "none"
frontend "b": header "Content-Length" cannot be edited: skein makes it by itself, for each side anew
frontend "c": the value of header "X" contains a control character
frontend "d": "X Y" is not a header name
frontend "e": route "r": when: in_cidr looks at client alone
frontend "e": route "s": when: compare client: "x" is not an address
frontend "e": route "t": when: unknown operation 99 in a condition
frontend "e": route "u": render the reply: a line ends with LF alone instead of CR LF
frontend "g": frontend "f" listens on 127.0.0.1:84 already`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	twice := []*config.Server{{Name: "x"}, {Name: "x"}}
	_, err = Compile(&config.Config{Backends: []*config.Backend{{Name: "b", Servers: twice}}}, nil)
	if want := `backend "b": servers "x" and "x" have the same identifier: rename one of them`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestReplySuitsTheRequest(t *testing.T) {
	edits := h1.CompileEdits(config.HeaderEdits{Set: []config.Header{{Name: "X-Edge", Value: "1"}}})
	dated := h1.CompileEdits(config.HeaderEdits{Set: []config.Header{{Name: "Date", Value: "then"}}})
	respond := &config.Respond{Status: 503, Body: "later\n"}
	head := "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 6\r\n"
	for _, c := range []struct {
		what  string
		c     *config.Respond
		edits *h1.Edits
		head  bool
		minor uint8
		close bool
		want  string
	}{
		{"plain", respond, nil, false, 1, false, head + "Date: now\r\n\r\nlater\n"},
		{"HEAD", respond, nil, true, 1, false, head + "Date: now\r\n\r\n"},
		{"last", respond, nil, false, 1, true, head + "Date: now\r\nConnection: close\r\n\r\nlater\n"},
		{"HTTP/1.0", respond, nil, false, 0, false, head + "Date: now\r\nConnection: keep-alive\r\n\r\nlater\n"},
		{"edited", respond, edits, false, 1, false, head + "X-Edge: 1\r\nDate: now\r\n\r\nlater\n"},
		{"dated", respond, dated, false, 1, false, head + "Date: then\r\n\r\nlater\n"},
		{"204", &config.Respond{Status: 204, Body: "x"}, nil, false, 1, false, "HTTP/1.1 204 No Content\r\nDate: now\r\n\r\n"},
		{"empty", &config.Respond{Status: 200}, nil, false, 1, false, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: now\r\n\r\n"},
	} {
		r, err := newRespond(c.c, c.edits)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		if got := string(r.Append(nil, c.head, c.minor, c.close, []byte("now"))); got != c.want {
			t.Errorf("%s:\n got  %q\n want %q", c.what, got, c.want)
		}
	}
	r, err := newRedirect(&config.Redirect{Location: "/a?b&c\"", Status: 307}, nil)
	if err != nil || !bytes.Contains(r.Append(nil, false, 1, false, nil), []byte("\r\nLocation: /a?b&c\"\r\n")) ||
		!bytes.Contains(r.Body, []byte(`href="/a?b&amp;c&#34;"`)) {
		t.Errorf("a redirect: %q, %v", r.Append(nil, false, 1, false, nil), err)
	}
}

func TestRouteDoesNotAllocate(t *testing.T) {
	src, err := os.ReadFile("testdata/routes/shop.txt")
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(src), "====\n")
	f := compile(t, text, nil).Frontends[0]
	q := request(t, "GET WWW.example.com /a/b?mode=a%20b&q=%41", "User-Agent: Mozilla/5.0", "Cookie: beta=yes2; a=b", "X-Kind: image")
	client := netip.MustParseAddr("203.0.113.9")
	var s Scratch
	if a := f.Route(q, client, &s); a.Name != "default" {
		t.Fatal(a.Name)
	}
	if n := testing.AllocsPerRun(100, func() { f.Route(q, client, &s) }); n != 0 && !race.Enabled { // regexp has pools
		t.Errorf("%v allocations per request, want none", n)
	}
}
