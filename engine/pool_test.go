package engine_test

import (
	"bufio"
	"io"
	"net/http"
	"testing"

	"github.com/skeinlb/skein/engine"
)

func TestARemovedServerIsNotKeptConnectedByWhatWasUnderWay(t *testing.T) {
	// A request is under way when its backend is removed. Its server answers that it cannot, and it is sent to the other one, to which there
	// has been no connection yet. That is not kept: nobody will use it again.
	asked, release := make(chan struct{}), make(chan struct{})
	busy := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
		close(asked)
		<-release
		w.WriteHeader(503)
	})
	r := start(t, engine.Options{}, func(port int) string {
		return httpFrontend(port, "retries {\n on = \"503\"\n}", busy, named(t, "s2"))
	})
	c := r.dial()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-asked
	if err := r.e.Apply(parse(t, "")); err != nil {
		t.Fatal(err)
	}
	close(release)
	if resp, body := answer(t, bufio.NewReader(c), "GET"); resp.StatusCode != 200 || body != "s2" {
		t.Errorf("%d %q, want the other server's answer", resp.StatusCode, body)
	}
	waitFor(t, "the client's connection to be closed", func() bool { return r.e.Stats().Loops[0].Clients == 0 })
	if n := r.e.Stats().Loops[0].Servers; n != 0 {
		t.Errorf("%d connections to servers that nobody has any more", n)
	}
}

func TestALimitThatIsNewHoldsForConnectionsFromBefore(t *testing.T) {
	// One loop has an unused connection to a server, from a time without limits. Now the server may have one, and clients of the other loop
	// want it: they get its place and are told so.
	s1 := named(t, "s1")
	var port int
	const wait = "queue {\n timeout = \"2s\"\n}"
	r := start(t, engine.Options{Loops: 2}, func(p int) string { port = p; return httpFrontend(p, wait, s1) })
	get := func() string {
		c := r.dial()
		resp, _ := ask(t, c, bufio.NewReader(c), "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		return resp.Status
	}
	for i := range 10 { // the kernel decides on which loop a client is
		get()
		if err := r.e.Apply(parse(t, limited(httpFrontend(port, wait, s1), 1))); err != nil {
			t.Fatal(err)
		}
		if got := get(); got != "200 OK" {
			t.Fatalf("client %d: %s", i, got)
		}
		if err := r.e.Apply(parse(t, httpFrontend(port, wait, s1))); err != nil {
			t.Fatal(err)
		}
	}
}
