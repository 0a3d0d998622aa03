package conform

import (
	"flag"
	"strings"
	"testing"
	"time"
)

var (
	mutations = flag.Uint64("mutations", 500, "how many scripts TestTornRequestsSmuggleNothing sends")
	seed      = flag.Uint64("seed", 1, "of the scripts")
	from      = flag.Uint64("from", 0, "the number of the first script; with -mutations 1 it is the only one")
)

// What nobody has thought of as a case: valid requests, torn in a few places.
func TestTornRequestsSmuggleNothing(t *testing.T) {
	r, err := Start(Skein(build(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	for n := *from; n < *from+*mutations; n++ {
		s := Generate(*seed, n)
		if wrong := r.Survive(s); len(wrong) > 0 {
			t.Errorf("script %d of seed %d (-seed %d -from %d -mutations 1), %v:\n    %s", n, *seed, *seed, n, s, strings.Join(wrong, "\n    "))
		}
	}
}

// The oracle must see through a relay, which passes on what is torn; what is valid passes a relay unharmed, so that it is not to blame.
func TestTheFuzzerSeesThroughARelay(t *testing.T) {
	o, err := NewOrigin()
	if err != nil {
		t.Fatal(err)
	}
	j := Judge{Addr: relay(t, o.listener.Addr().String()), Origin: o, Patience: 500 * time.Millisecond}
	t.Cleanup(o.Close)
	torn, caught := 0, 0
	for n := range uint64(200) {
		s := Generate(1, n)
		s.Pause = false
		if s.Expect != nil {
			continue // a strict origin refuses what a proxy would have made canonical
		}
		torn++
		if len(j.Survive(s)) > 0 {
			caught++
		}
	}
	if caught < torn/2 {
		t.Errorf("of %d torn scripts through a relay, %d are called wrong", torn, caught)
	}
}

func TestScriptsAreReplayed(t *testing.T) {
	valid, cut := 0, 0
	for n := range uint64(400) {
		s, again := Generate(7, n), Generate(7, n)
		if s.String() != again.String() {
			t.Fatalf("script %d is %v, then %v", n, s, again)
		}
		if strings.Join(s.writes(), "") != s.Bytes {
			t.Fatalf("script %d loses bytes between writes", n)
		}
		if s.Expect != nil {
			valid++
		}
		if len(s.writes()) > 1 {
			cut++
		}
	}
	if valid < 25 || cut < 80 {
		t.Errorf("of 400 scripts %d are valid and %d cut", valid, cut)
	}
}

func TestTheSecondOpinion(t *testing.T) {
	for sent, want := range map[string]string{
		"GET /a HTTP/1.1|Host: a||":                                                                  "GET /a",
		"||GET /a HTTP/1.1|Host: a||":                                                                "",
		"|GET /a HTTP/1.1|Host: a||":                                                                 "GET /a",
		"GET http://A:80/a?b HTTP/1.1|Host: c||GET /b HTTP/1.9|host:a||":                             "GET /a?b, GET /b",
		"GET /a HTTP/1.1|Host: a|Connection: close||GET /b HTTP/1.1|Host: a||":                       "GET /a",
		"GET /a HTTP/1.1|Host: a|Content-Length: 1||xGET /b HTTP/1.1|Host: a||":                      "GET /a x, GET /b",
		"GET /a HTTP/1.1|Host: a|Content-Length: +1||xGET /b HTTP/1.1|Host: a||":                     "",
		"GET /a HTTP/1.1|Host: a|Content-Length: 1|Transfer-Encoding: chunked||0||":                  "",
		"GET /a HTTP/1.1|Host: a|Transfer-Encoding: chunked||01 ; x|x|0;y|T: z||GET /b HTTP/1.1|H: ": "GET /a x",
		"GET /a HTTP/1.1|Host: a|Transfer-Encoding: chunked||1|x\n0||":                               "",
		"GET /a HTTP/1.1\nHost: a||":                                                                 "",
		"GET /a HTTP/1.1|Host: a|":                                                                   "",
	} {
		if got := strings.Join(legal(crlf(sent)), ", "); got != want {
			t.Errorf("%q: %q, want %q", sent, got, want)
		}
	}
	all := []string{"a", "b", "b", "c"}
	for some, want := range map[string]bool{"": true, "a": true, "b b": true, "a c": true, "c a": false, "b b b": false, "d": false} {
		if within(strings.Fields(some), all) != want {
			t.Errorf("%q stands in %q: %v", some, all, !want)
		}
	}
}
