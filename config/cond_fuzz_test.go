package config

import (
	"fmt"
	"testing"
)

// parseWhen reads one condition in the least file that can hold it.
func parseWhen(text string) (*Cond, Diagnostics) {
	src := fmt.Sprintf("list \"l\" {}\nfrontend \"f\" {\n  bind = [\"127.0.0.1\"]\n  http = 80\n  route \"r\" {\n    when = (\n%s\n)\n    backend = \"b\"\n  }\n}\n"+
		"backend \"b\" {\n  server \"s\" { address = \"127.0.0.1:1\" }\n}\n", text)
	c, diags := Parse("edge.hcl", []byte(src))
	if c == nil || len(c.Frontends) != 1 || len(c.Frontends[0].Routes) != 1 {
		return nil, diags
	}
	return c.Frontends[0].Routes[0].When, diags
}

// Whatever a condition's text is: it is refused with a reason, or understood as something whose own text is understood the same.
func FuzzCondition(f *testing.F) {
	for _, s := range []string{
		`method == "GET"`, `method == "GET" || method == "HEAD" && !(path == "/a")`, `"a$${b}" != query["q q"] && !!starts_with(host, "WWW.")`,
		`one_of(method, ["PUT", "POST"])`, `in_cidr(client, ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"])`, `in_list(client, "l")`,
		`matches(header["User-Agent"], "(?i)bot|crawl\\w+")`, `lower(cookie["x"]) != "off"`, `client != "10.1.2.3"`, `host == path`, `true`, `((((method == "A"))))`,
		`header["a"] == "1" || # a comment
header["b"] == "2"`, `one_of(header["\u00e4"], [])`, `lower(lower(path)) == "/A"`, `matches(path, "(")`, `path == <<E
x
E`, `in_cidr(client, "300.0.0.0/8")`, `!`, `method ==`, `"${path}" == "a"`, `path == "\x00"`, `header["a"]["b"] == "c"`, `path[0] == "/"`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, diags := parseWhen(text)
		if c == nil {
			if len(diags) == 0 {
				t.Fatalf("%q is neither understood nor refused", text)
			}
			return
		}
		said := c.String()
		again, diags := parseWhen(said)
		if again == nil {
			t.Fatalf("%q is understood as %s, which is refused: %v", text, said, diags)
		}
		if again.String() != said {
			t.Fatalf("%q is understood as %s, and that as %s", text, said, again)
		}
	})
}
