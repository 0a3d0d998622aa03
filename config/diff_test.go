package config

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const shop = `vip "public" {
  address = "192.0.2.10/24"
}
frontend "shop" {
  vip  = "public"
  http = 80
  route "a" {
    path    = "/a"
    backend = "shop"
  }
  route "b" {
    path     = "/b"
    redirect = "/a"
  }
  backend = "shop"
}
backend "shop" {
  server "s1" { address = "198.51.100.21:8080" }
  server "s2" { address = "198.51.100.22:8080" }
}
`

// Each case edits the configuration above, and says what is different then.
func TestDiff(t *testing.T) {
	for _, x := range []struct {
		name string
		edit []string // pairs: replace the first by the second
		want []string
	}{
		{"nothing", nil, nil},
		{"layout, comments and defaults", []string{"  http = 80\n", "  http = [80] # the port\n\n  timeouts { client = \"60s\" }\n",
			`server "s1" {`, `server "s1" {
    weight = 1
    backup = false
   `, `:8080" }
  server "s2"`, `:8080"
  }
  server "s2"`}, nil},
		{"a weight", []string{`server "s2" { address = "198.51.100.22:8080" }`, "server \"s2\" {\n    address = \"198.51.100.22:8080\"\n    weight = 2\n  }"},
			[]string{`change backend "shop" server "s2": weight 1 -> 2`}},
		{"a server comes and one goes", []string{`"s1"`, `"s3"`},
			[]string{`add backend "shop" server "s3": 198.51.100.21:8080`, `remove backend "shop" server "s1": 198.51.100.21:8080`}},
		{"two attributes of one object", []string{"  server \"s1\"", "  balance = \"source_hash\"\n  on_down = \"close\"\n  server \"s1\""},
			[]string{`change backend "shop": balance round_robin -> source_hash`, `change backend "shop": on_down keep -> close`}},
		{"a backend with its servers", []string{"vip \"public\"", "backend \"api\" {\n  server \"a\" { address = \"198.51.100.41:80\" }\n}\nvip \"public\"",
			"path    = \"/a\"\n    backend = \"shop\"", "path    = \"/a\"\n    backend = \"api\""},
			[]string{
				`change frontend "shop" route "a": action backend "shop" -> backend "api"`,
				`add backend "api": 1 server, round_robin`,
				`add backend "api" server "a": 198.51.100.41:80`,
			}},
		{"order of routes", []string{`route "a"`, `route "x"`, `route "b"`, `route "a"`, `"/a"`, `"/z"`, "path     = \"/b\"\n    redirect = \"/a\"",
			"path    = \"/a\"\n    backend = \"shop\"", `"/z"`, `"/b"`, "path    = \"/b\"\n    backend = \"shop\"", "path     = \"/b\"\n    redirect = \"/a\"", `route "x"`, `route "b"`},
			[]string{`change frontend "shop": routes a, b -> b, a`}},
		{"a vip", []string{"192.0.2.10/24\"", "192.0.2.11/24\"\n  prefer = [\"lb1\", \"lb2\"]"},
			[]string{`change vip "public": address 192.0.2.10/24 -> 192.0.2.11/24`, `change vip "public": prefer none -> lb1, lb2`}},
		{"a name is another object", []string{`vip "public"`, `vip "edge"`, `= "public"`, `= "edge"`},
			[]string{`add vip "edge": 192.0.2.10/24`, `change frontend "shop": vip public -> edge`, `remove vip "public": 192.0.2.10/24`}},
		{"port and protocol", []string{"http = 80\n", "http = [80, 8080]\n"}, []string{`change frontend "shop": ports http 80 -> http 80, 8080`}},
		{"a check, stickiness, headers", []string{"  server \"s1\"", "  check \"tcp\" {}\n  sticky \"cookie\" {}\n  server \"s1\"",
			"  http = 80\n", "  http = 80\n  request_headers {\n    remove = \"x-debug\"\n  }\n"},
			[]string{
				`change frontend "shop": request_headers remove none -> x-debug`,
				`change backend "shop": sticky none -> cookie SKEIN http_only`,
				`change backend "shop": check none -> tcp interval=2s timeout=1s rise=2 fall=3`,
			}},
	} {
		t.Run(x.name, func(t *testing.T) {
			edited := shop
			for i := 0; i < len(x.edit); i += 2 {
				if !strings.Contains(edited, x.edit[i]) {
					t.Fatalf("nothing to edit: %s", x.edit[i])
				}
				edited = strings.Replace(edited, x.edit[i], x.edit[i+1], 1)
			}
			var got []string
			for _, c := range Diff(mustParse(t, shop), mustParse(t, edited)) {
				got = append(got, c.String())
			}
			if diff := cmp.Diff(x.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDiffFromAndToNothing(t *testing.T) {
	c := mustParse(t, shop)
	added, removed := Diff(nil, c), Diff(c, nil)
	if len(added) != 7 || len(removed) != 7 {
		t.Fatalf("%d added, %d removed, want 7 objects", len(added), len(removed))
	}
	for i := range added {
		if added[i].Kind != Added || removed[i].Kind != Removed || added[i].Object != removed[i].Object {
			t.Errorf("%v, %v", added[i], removed[i])
		}
	}
}

// A long body that differs behind what is shown of it is a difference.
func TestDiffSeesTheEndOfABody(t *testing.T) {
	src := func(end string) string {
		return "frontend \"f\" {\n  bind = [\"127.0.0.1\"]\n  http = 80\n  route \"r\" {\n    respond {\n      status = 200\n      body = \"" +
			strings.Repeat("x", 100) + end + "\"\n    }\n  }\n}\n"
	}
	if got := Diff(mustParse(t, src("a")), mustParse(t, src("b"))); len(got) != 1 {
		t.Error(got)
	}
}

func TestChangesAndFindingsTravelAsJSON(t *testing.T) {
	in := struct {
		Changes  []Change
		Findings Diagnostics
	}{
		[]Change{{Added, "a", "b"}, {Removed, "c", "d"}, {Changed, "e", "f"}},
		Diagnostics{{Error, Pos{"edge.hcl", 1, 2}, "s", "h", "l", 3}, {Warning, Pos{"edge.hcl", 4, 5}, "s", "", "l", 1}},
	}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	out := in
	out.Changes, out.Findings = nil, nil
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out); diff != "" {
		t.Error(diff)
	}
	if want := `{"kind":"add","object":"a","detail":"b"}`; !bytes.Contains(b, []byte(want)) {
		t.Errorf("%s lacks %s", b, want)
	}
}
