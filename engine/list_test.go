package engine_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/plan"
)

// dialFrom connects to the engine from an address of the loopback network.
func (r *rig) dialFrom(from string) net.Conn {
	r.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", r.addr)
	if errors.Is(err, syscall.ECONNRESET) { // refused so fast that connect saw it
		return refused{}
	} else if err != nil {
		r.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	r.t.Cleanup(func() { c.Close() })
	return c
}

// refused is a connection that was reset before it was there.
type refused struct{ net.Conn }

func (refused) Read([]byte) (int, error)  { return 0, syscall.ECONNRESET }
func (refused) Write([]byte) (int, error) { return 0, syscall.ECONNRESET }

// asked sends a request from an address and returns what the client got; "" is a reset or an end.
func (r *rig) asked(from, fields string) string {
	r.t.Helper()
	c := r.dialFrom(from)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n"+fields+"\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return ""
	}
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

const lists = `
list "all" { cidrs = "127.0.0.0/8" }
list "office" { cidrs = ["127.0.0.16/28"] }
list "banned" { cidrs = ["127.0.0.30"] }
list "none" {}
`

func guarded(text, attrs string) string {
	return lists + strings.Replace(text, "backend = \"b\"", attrs+"\n backend = \"b\"", 1)
}

func entry(in bool, prefix string) config.ListEntry {
	return config.ListEntry{Prefix: netip.MustParsePrefix(prefix), In: in}
}

func TestListsSayWhoMayConnect(t *testing.T) {
	addr := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	for _, tc := range []struct {
		attrs            string
		refused, allowed []string
	}{
		{`allow = "office"`, []string{"127.0.0.1", "127.0.0.32"}, []string{"127.0.0.16", "127.0.0.31"}},
		{`deny = "office"`, []string{"127.0.0.16", "127.0.0.31"}, []string{"127.0.0.1", "127.0.0.32"}},
		{"allow = [\"none\", \"office\"]\ndeny = \"banned\"", []string{"127.0.0.1", "127.0.0.30"}, []string{"127.0.0.29"}},
		{`allow = "none"`, []string{"127.0.0.1"}, nil},
		{`deny = "none"`, nil, []string{"127.0.0.1"}},
	} {
		r := start(t, engine.Options{}, func(port int) string { return guarded(httpFrontend(port, "", addr), tc.attrs) })
		for _, from := range tc.refused {
			if got := r.asked(from, ""); got != "" {
				t.Errorf("%s: %s got %q", tc.attrs, from, got)
			}
		}
		for _, from := range tc.allowed {
			if got := r.asked(from, ""); got != "ok" {
				t.Errorf("%s: %s got %q", tc.attrs, from, got)
			}
		}
		st := r.e.Stats().Frontends[0]
		if n := st.Failures[plan.Denied]; n != uint64(len(tc.refused)) || st.Connections != uint64(len(tc.allowed)) {
			t.Errorf("%s: counted %d denied, %d connections", tc.attrs, n, st.Connections)
		}
	}
}

func TestDenyingAtRunTimeCutsWhatIsEstablished(t *testing.T) {
	// A stream and a kept connection of the same address; another address keeps its own.
	echo := serve(t, func(c net.Conn) { io.Copy(c, c) })
	var text string
	r := start(t, engine.Options{Loops: 2}, func(port int) string {
		text = guarded(frontend("tcp", port, "", echo), `deny = "banned"`)
		return text
	})
	said := func(c net.Conn) error {
		io.WriteString(c, "x")
		_, err := io.ReadFull(c, make([]byte, 1))
		return err
	}
	bad, good := r.dialFrom("127.0.0.9"), r.dialFrom("127.0.0.8")
	if err1, err2 := said(bad), said(good); err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	r.e.SetList("banned", []config.ListEntry{entry(true, "127.0.0.9/32"), entry(false, "127.0.0.30/32")})
	if _, err := bad.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the denied stream read %v, want a reset", err)
	}
	if err := said(good); err != nil {
		t.Errorf("the other stream: %v", err)
	}
	if err := said(r.dialFrom("127.0.0.30")); err != nil {
		t.Errorf("an address taken away from the list: %v", err)
	}
	// What was set at run time outranks the file of the next configuration, too, and is gone when it is cleared.
	if err := r.e.Apply(parse(t, text)); err != nil {
		t.Fatal(err)
	}
	if err := said(r.dialFrom("127.0.0.9")); err == nil {
		t.Error("after an apply the denied address connects")
	}
	r.e.SetList("banned", nil)
	if err := said(r.dialFrom("127.0.0.9")); err != nil {
		t.Errorf("after clearing: %v", err)
	}
	if err := said(r.dialFrom("127.0.0.30")); err == nil {
		t.Error("after clearing, what the file says does not hold")
	}
	r.e.SetList("no such list", nil)
}

func TestATrustedProxySaysForWhomItAsks(t *testing.T) {
	addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
		fmt.Fprintf(w, "%s %s", q.Header["X-Forwarded-For"], q.Header["X-Forwarded-Proto"])
	})
	route := "route \"r\" {\n when = in_list(client, \"banned\") || client == \"2001:db8::7\"\n respond {\n status = 403\n body = \"banned\"\n}\n}"
	r := start(t, engine.Options{}, func(port int) string {
		return guarded(httpFrontend(port, "", addr), "trusted = \"office\"\n"+route)
	})
	for _, tc := range []struct{ what, from, fields, want string }{
		{"not trusted", "127.0.0.1", "X-Forwarded-For: 127.0.0.30\r\nX-Forwarded-Proto: https\r\n", "[127.0.0.1] [http]"},
		{"trusted", "127.0.0.16", "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n", "[192.0.2.1, 127.0.0.16] [https]"},
		{"says nothing", "127.0.0.16", "", "[127.0.0.16] [http]"},
		{"nonsense for a scheme", "127.0.0.16", "X-Forwarded-Proto: gopher\r\n", "[127.0.0.16] [http]"},
		{"the banned", "127.0.0.16", "X-Forwarded-For: 127.0.0.30\r\n", "banned"},
		{"with a port", "127.0.0.16", "X-Forwarded-For: 127.0.0.30:4711\r\n", "banned"},
		{"IPv6", "127.0.0.16", "X-Forwarded-For: 2001:db8::7\r\n", "banned"},
		{"IPv6 with a port", "127.0.0.16", "X-Forwarded-For: [2001:db8::7]:80\r\n", "banned"},
		{"behind two proxies", "127.0.0.16", "X-Forwarded-For: 127.0.0.30, 127.0.0.17\r\n", "banned"},
		{"in two fields", "127.0.0.16", "X-Forwarded-For: 127.0.0.30\r\nX-Forwarded-For: 127.0.0.17\r\n", "banned"},
		{"what an untrusted hop claims", "127.0.0.16", "X-Forwarded-For: 127.0.0.30, 192.0.2.1\r\n", "[127.0.0.30, 192.0.2.1, 127.0.0.16] [http]"},
		{"behind nonsense", "127.0.0.16", "X-Forwarded-For: 127.0.0.30, unknown\r\n", "[127.0.0.30, unknown, 127.0.0.16] [http]"},
		{"underscores", "127.0.0.16", "X_Forwarded_For: 127.0.0.30\r\n", "[127.0.0.16] [http]"},
	} {
		if got := r.asked(tc.from, tc.fields); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.what, got, tc.want)
		}
	}
}
