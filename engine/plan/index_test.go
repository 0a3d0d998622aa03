package plan

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/skeinlb/skein/config"
)

// matches says, from the words of the configuration alone, whether a route can match.
func matches(c *config.Route, host, path string) bool {
	fits := len(c.Hosts) == 0
	for _, h := range c.Hosts {
		fits = fits || h == host || h[0] == '*' && strings.HasSuffix(host, h[1:]) && len(host) >= len(h)
	}
	if !fits {
		return false
	}
	fits = len(c.Paths) == 0
	for _, p := range c.Paths {
		tree, ok := strings.CutSuffix(p, "/*")
		fits = fits || p == path || ok && (path == tree || strings.HasPrefix(path, tree+"/"))
	}
	return fits
}

func TestIndexAgreesWithTheListOfRoutes(t *testing.T) {
	// Random routes over few hosts and paths, so that they overlap; the index must return every route that can match, in written
	// order. It may return others, which their tests sort out, but only where there are few of them.
	r := rand.New(rand.NewPCG(3, 4))
	labels := []string{"a", "b", "c"}
	name := func() string {
		return strings.Join([]string{pick(r, labels), pick(r, labels), pick(r, labels), "x"}[r.IntN(4):], ".")
	}
	path := func() string {
		var b strings.Builder
		for range r.IntN(4) {
			b.WriteString(pick(r, []string{"/a", "/b", "/", "/ab"}))
		}
		if b.Len() == 0 {
			return pick(r, []string{"/", "*"})
		}
		return b.String()
	}
	for round := range 400 {
		var routes []*config.Route
		for range 1 + r.IntN([]int{8, 60}[round%2]) {
			c := &config.Route{}
			for range r.IntN(4) {
				c.Hosts = append(c.Hosts, pick(r, []string{"", "*."})+name())
			}
			for range r.IntN(4) {
				if p := path(); p != "*" {
					c.Paths = append(c.Paths, strings.TrimSuffix(p, "/")+pick(r, []string{"", "/*"}))
				}
			}
			c.Paths = slices.DeleteFunc(c.Paths, func(p string) bool { return p == "" })
			routes = append(routes, c)
		}
		x := newIndex(routes)
		var s Scratch
		for range 30 {
			host, path := name(), path()
			s.host = []byte(host)
			x.find(&s, []byte(path))
			var got, want []int32
			tries := 0
			for i := s.next(); i >= 0; i = s.next() {
				if tries++; matches(routes[i], host, path) {
					got = append(got, i)
				}
			}
			for i, c := range routes {
				if matches(c, host, path) {
					want = append(want, int32(i))
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("host %s path %s: routes %v, want %v", host, path, got, want)
			}
			if most := len(want) + fewRoutes*len(s.found); tries > most {
				t.Fatalf("host %s path %s: %d routes tried for the %d that match", host, path, tries, len(want))
			}
		}
	}
}

func TestIndexLooksAtNoMoreThanConfigured(t *testing.T) {
	// A host of many labels and a path of many segments: the lists that are looked for are bounded by the configuration.
	var routes []*config.Route
	for i := range 100 {
		routes = append(routes, &config.Route{Hosts: []string{"*.example.com"}, Paths: []string{fmt.Sprintf("/%d/*", i)}})
	}
	routes = append(routes, &config.Route{Paths: []string{"/*"}})
	x := newIndex(routes)
	s := Scratch{host: []byte(strings.Repeat("a.", 100) + "example.com")}
	x.find(&s, []byte(strings.Repeat("/42", 1000)))
	if a, b := s.next(), s.next(); a != 42 || b != 100 || s.next() != -1 {
		t.Errorf("found %d and %d, want 42 and 100", a, b)
	}
	if len(s.found) != 2 {
		t.Errorf("%d lists, want 2", len(s.found))
	}
}

func BenchmarkRoute(b *testing.B) {
	client := netip.MustParseAddr("203.0.113.9")
	for _, c := range []struct{ name, host, path string }{
		{"hosts", "h%d.example.com", "/v1"},
		{"paths", "www.example.com", "/v1/p%d"},
		{"trees", "www.example.com", "/v%d"},
	} {
		for _, n := range []int{1, 5, 10, 100, 1000, 10000} {
			b.Run(fmt.Sprintf("%s=%d", c.name, n), func(b *testing.B) {
				of := func(format string, i int) string {
					if strings.Contains(format, "%") {
						return fmt.Sprintf(format, i)
					}
					return format
				}
				star := map[bool]string{true: "/*"}[c.name != "paths"]
				var text strings.Builder
				text.WriteString("frontend \"f\" {\n  bind = [\"127.0.0.1\"]\n  http = 8080\n")
				for i := range n {
					fmt.Fprintf(&text, "  route \"r%d\" {\n host = %q\n path = %q\n backend = \"b\"\n }\n", i, of(c.host, i), of(c.path, i)+star)
				}
				text.WriteString("}\nbackend \"b\" {\n  server \"s\" { address = \"198.18.1.1:80\" }\n}\n")
				f := compile(b, text.String(), nil).Frontends[0]
				q := request(b, fmt.Sprintf("GET %s %s", of(c.host, n-1), of(c.path, n-1)))
				var s Scratch
				b.ReportAllocs()
				for b.Loop() {
					f.Route(q, client, &s)
				}
			})
		}
	}
}
