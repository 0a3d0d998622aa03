package config

import (
	"bytes"
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skeinlb/skein/internal/golden"
)

// Each file of testdata/good is a configuration that is right; the file beside it with the ending .dump says how it was
// understood, every default included.
func TestGoodFileIsUnderstood(t *testing.T) {
	for _, path := range glob(t, "testdata/good/*.hcl", 5) {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".hcl"), func(t *testing.T) {
			src := []byte(readCase(t, path))
			c, diags := Parse(path, src)
			if len(diags) > 0 {
				var b strings.Builder
				diags.Print(&b, false)
				t.Fatalf("not taken as it is:\n%s", b.String())
			}
			if !bytes.Equal(c.Text, src) {
				t.Error("Text is not the source")
			}
			golden.File(t, strings.TrimSuffix(path, ".hcl")+".dump", dump(c))
		})
	}
}

// dump writes a configuration as Diff sees it: what is not in the dump is no difference either.
func dump(c *Config) string {
	var b strings.Builder
	for _, o := range objects(c) {
		fmt.Fprintf(&b, "%s: %s\n", o.name, o.summary)
		for _, a := range o.attrs {
			if a.value != "" {
				fmt.Fprintf(&b, "  %s: %s\n", a.name, a.value)
			}
		}
	}
	return b.String()
}

func mustParse(t *testing.T, src string) *Config {
	t.Helper()
	c, diags := Parse("edge.hcl", []byte(src))
	if c == nil {
		t.Fatal(diags)
	}
	return c
}

func TestParsedValuesAreOfTheirTypes(t *testing.T) {
	c := mustParse(t, readCase(t, "testdata/good/everything.hcl"))
	b := c.Backend("api")
	for _, x := range []struct {
		what      string
		got, want any
	}{
		{"vip", c.VIP("public").Addresses, []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24"), netip.MustParsePrefix("192.0.2.11/24")}},
		{"cookie", *b.StickyCookie, StickyCookie{Name: "API", Secure: true, SameSite: "None"}},
		{"table", *c.Backend("db").StickyTable, StickyTable{Key: StickyKey{Source: "client"}, TTL: time.Hour, Size: 5000}},
		{"timeouts", b.Timeouts, BackendTimeouts{time.Second, 30 * time.Second, 45 * time.Second, 10 * time.Second}},
		{"check", *b.Check, Check{
			Kind: CheckHTTP, Interval: 500 * time.Millisecond, Timeout: 500 * time.Millisecond, Rise: 1, Fall: 2, Port: 8081,
			Path: "/healthz?full=1", Host: "api.example.com",
			Expect: Expect{Status: []StatusRange{{200, 299}, {301, 302}, {404, 404}, {418, 418}}, Body: "ok"},
		}},
		{"listeners", c.Listeners(c.Frontends[1]), []Listener{
			{netip.MustParseAddrPort("127.0.0.1:5432"), TCP, false}, {netip.MustParseAddrPort("198.51.100.5:5432"), TCP, false},
		}},
		{"hosts", c.Frontends[0].Routes[0].Hosts, []string{"shop.example.com", "*.shop.example.com"}},
		{"headers", c.Frontends[0].Routes[0].Headers, []Pair{{"x-tenant", "a"}, {"x-empty", ""}}},
		{"redirect", *c.Frontends[0].Routes[2].Redirect, Redirect{"https://www.example.com/", 302}},
		{"respond", *c.Frontends[0].Routes[5].Respond, Respond{200, "User-agent: *\nDisallow: /\n", "text/plain; charset=utf-8"}},
		{"pos", b.Servers[1].Pos, Pos{"edge.hcl", 176, 3}},
	} {
		if diff := cmp.Diff(x.want, x.got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
			cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", x.what, diff)
		}
	}
}

// A condition written by String is read as the same condition.
func TestConditionReadsWhatItWrites(t *testing.T) {
	c := mustParse(t, readCase(t, "testdata/good/conditions.hcl"))
	for _, r := range c.Frontends[0].Routes {
		src := "frontend \"f\" {\n  bind = [\"127.0.0.1\"]\n  http = 80\n  route \"r\" {\n    when = " + r.When.String() +
			"\n    respond { status = 404 }\n  }\n}\n" +
			"list \"office\" {}\nlist \"guests\" {}\n"
		again := mustParse(t, src).Frontends[0].Routes[0].When
		if again.String() != r.When.String() {
			t.Errorf("%s: wrote %s, read %s", r.Name, r.When, again)
		}
		if again.Pos != (Pos{"edge.hcl", 5, 12}) {
			t.Errorf("%s: at %v", r.Name, again.Pos)
		}
	}
}

func TestNodeFile(t *testing.T) {
	n, diags := ParseNode("node.hcl", []byte("name = \"lb1\"\ndata_dir = \"/var/lib/skein/\"\nadvertise = \"198.51.100.1\"\n"))
	if n == nil {
		t.Fatal(diags)
	}
	if want := (Node{Name: "lb1", DataDir: "/var/lib/skein", Advertise: netip.MustParseAddr("198.51.100.1"), Port: 7940, Role: Balancer}); !reflect.DeepEqual(*n, want) {
		t.Errorf("got %+v, want %+v", *n, want)
	}
	n, diags = ParseNode("node.hcl", []byte("name = \"w\"\ndata_dir = \"/w\"\nadvertise = \"198.51.100.3\"\nport = 8000\ninterface = \"eth0\"\nrole = \"witness\"\nheartbeat = [\"10.0.0.3\", \"fd00::3\"]\n"))
	if n == nil {
		t.Fatal(diags)
	}
	if want := (Node{Name: "w", DataDir: "/w", Advertise: netip.MustParseAddr("198.51.100.3"), Port: 8000, Interface: "eth0", Role: Witness,
		Heartbeat: []netip.Addr{netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("fd00::3")}}); !reflect.DeepEqual(*n, want) {
		t.Errorf("got %+v, want %+v", *n, want)
	}
}

// The recursive parser would run out of stack, which ends the process, in longer files of these kinds.
func TestDeepFilesAreRefused(t *testing.T) {
	for name, src := range map[string]string{
		"parentheses": "a = " + strings.Repeat("(", 1<<14),
		"blocks":      strings.Repeat("a {\n", 1<<13),
		"not":         "a = " + strings.Repeat("!", 1<<14) + "b",
		"not, lines":  "a = (" + strings.Repeat("!\n", 1<<13) + "b)",
		"conditional": "a = " + strings.Repeat("b?c:", 1<<13) + "d",
		"templates":   "a = \"" + strings.Repeat("%{if b}", 1<<13) + "\"",
		"strings":     "a = " + strings.Repeat(`"${`, 1<<13),
		"brackets":    "a = b" + strings.Repeat("[c", 1<<13),
	} {
		if c, diags := Parse("edge.hcl", []byte(src)); c != nil || len(diags) != 1 || diags[0].Summary != "this nests too deeply" {
			t.Errorf("%s: %v", name, diags[:min(len(diags), 3)])
		}
	}
}

func TestLongConditionIsRefused(t *testing.T) {
	when := strings.Repeat(`path == "/a" || `, 5_000) + `path == "/b"`
	_, diags := Parse("edge.hcl", []byte("frontend \"f\" {\n  bind = [\"127.0.0.1\"]\n  http = 80\n  route \"r\" {\n    when = "+when+"\n    respond { status = 404 }\n  }\n}\n"))
	if len(diags) != 1 || !strings.Contains(diags[0].Summary, "at most 256 comparisons") {
		t.Errorf("got %d findings: %v", len(diags), diags[:min(len(diags), 3)])
	}
}

func TestLargeFileIsRefused(t *testing.T) {
	_, diags := Parse("edge.hcl", bytes.Repeat([]byte("#\n"), MaxSize/2+1))
	if len(diags) != 1 || !strings.Contains(diags[0].Summary, "more than 2097152") {
		t.Error(diags)
	}
}
