package engine_test

import (
	"bufio"
	"testing"

	"github.com/skeinlb/skein/engine"
)

func TestOpenConnectionsAreCountedUntilTheyEnd(t *testing.T) {
	origin := named(t, "s1")
	r := start(t, engine.Options{Loops: 2}, func(port int) string { return httpFrontend(port, "", origin) })
	open := func() int64 { return r.e.Stats().Frontends[0].Open() }
	one, two := r.dial(), r.dial()
	for _, c := range []interface {
		Read([]byte) (int, error)
		Write([]byte) (int, error)
	}{one, two} {
		if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		answer(t, bufio.NewReader(c), "GET")
	}
	if n := open(); n != 2 {
		t.Errorf("%d connections are open after two clients were served and stayed, want 2", n)
	}
	one.Close()
	waitFor(t, "one connection to end", func() bool { return open() == 1 })
	two.Close()
	waitFor(t, "the other one to end", func() bool { return open() == 0 })
}
