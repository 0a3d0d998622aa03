package api_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/api/apitest"
	"github.com/skeinlb/skein/api/client"
)

// apply applies a text on the newest revision and returns the events without the times.
func apply(t *testing.T, cl *client.Client, based uint64, text string) ([]api.ApplyEvent, error) {
	t.Helper()
	var events []api.ApplyEvent
	err := cl.Apply(t.Context(), api.ApplyRequest{File: "shop.hcl", Text: text, BasedOn: &based, Message: "test"}, func(e api.ApplyEvent) {
		events = append(events, e)
	})
	return events, err
}

func mustApply(t *testing.T, cl *client.Client, based uint64, text string) {
	t.Helper()
	if _, err := apply(t, cl, based, text); err != nil {
		t.Fatal(err)
	}
}

const shop = `
vip "public" { address = "192.0.2.10/24" }
frontend "shop" {
  vip     = "public"
  http    = 80
  backend = "shop"
}
backend "shop" {
  check "http" { path = "/healthz" }
  server "s1" { address = "198.51.100.21:8080" }
  server "s2" { address = "198.51.100.22:8080" }
}
`

func TestStatusShowsWhoCannotBeAskedWithinItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := apitest.New(t, "lb1", "lb2", "lb3")
		c.Nodes["lb3"].Set(func(w *apitest.World) { w.Dead = true })
		mustApply(t, c.Client(t, "lb1"), 0, shop)
		start := time.Now()
		s, err := c.Client(t, "lb2").Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("status took %v with a dead node, want about 500ms", took)
		}
		var got []string
		for _, n := range s.Nodes {
			got = append(got, n.Name+" "+map[bool]string{true: "reachable", false: n.Error}[n.Reachable])
		}
		want := []string{"lb1 reachable", "lb2 reachable", "lb3 no answer within 500ms"}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("nodes (-want +got):\n%s", d)
		}
		if s.Verdict == api.OK || s.AsOf.Node != "lb2" || s.Revision.Number != 1 {
			t.Errorf("verdict %s as of %+v, revision %d", s.Verdict, s.AsOf, s.Revision.Number)
		}
	})
}

func TestApplyTellsOfEveryNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := apitest.New(t, "lb1", "lb2", "lb3", "lb4")
		c.Nodes["lb2"].Set(func(w *apitest.World) { w.Slow = 3 * time.Second })
		c.Nodes["lb3"].Set(func(w *apitest.World) { w.Refuse = "listen on 192.0.2.10:80: address already in use" })
		c.Nodes["lb4"].Set(func(w *apitest.World) { w.Dead = true })
		events, err := apply(t, c.Client(t, "lb1"), 0, shop)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) != 6 || events[0].Committed == nil || events[0].Committed.Number != 1 || events[5].Done == nil {
			t.Fatalf("events = %+v, want the commit, four nodes and the count", events)
		}
		if d := *events[5].Done; d != (api.ApplyDone{Revision: 1, Applied: 2, Nodes: 4}) {
			t.Errorf("done = %+v", d)
		}
		got := map[string]string{}
		for _, e := range events[1:5] {
			got[e.Node.Node] = e.Node.Error
			if e.Node.OK {
				got[e.Node.Node] = "runs it"
			}
		}
		want := map[string]string{
			"lb1": "runs it", "lb2": "runs it",
			"lb3": "listen on 192.0.2.10:80: address already in use", "lb4": "cannot be asked: no answer within 500ms",
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		if events[4].Node.Node != "lb2" {
			t.Errorf("the last to answer was %s, want the slow one", events[4].Node.Node)
		}
	})
}

// A node that is alive but does not get to the revision must not keep the operator waiting for ever.
func TestApplyDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := apitest.New(t, "lb1", "lb2")
		c.Nodes["lb2"].Set(func(w *apitest.World) { w.Slow = time.Minute })
		events, err := apply(t, c.Client(t, "lb1"), 0, shop)
		if err != nil {
			t.Fatal(err)
		}
		if last := events[len(events)-2].Node; last == nil || last.OK || !strings.Contains(last.Error, "not tried within 10s") {
			t.Errorf("last = %+v, want lb2 with the reason", last)
		}
	})
}

func TestErrorsHaveCodesAndHints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := apitest.New(t, "lb1", "lb2", "lb3")
		cl := c.Client(t, "lb2")
		mustApply(t, cl, 0, shop)
		drain, nonsense, weight := "drain", "asleep", 1000
		for _, tt := range []struct {
			name string
			do   func() error
			code api.Code
			says []string // in message or hint
		}{
			{"stale revision", func() error { _, err := apply(t, cl, 7, shop); return err },
				api.CodeStaleRevision, []string{"the current revision is 1", "skein plan"}},
			{"bad text", func() error { _, err := apply(t, cl, 1, "frontend {"); return err },
				api.CodeInvalidConfig, []string{"shop.hcl is not valid; nothing was changed"}},
			{"engine refuses", func() error { _, err := apply(t, cl, 1, ""); return err },
				api.CodeInvalidConfig, []string{"nothing would listen"}},
			{"no revision given", func() error {
				return cl.Apply(t.Context(), api.ApplyRequest{Text: shop}, func(api.ApplyEvent) {})
			}, api.CodeBadRequest, []string{"based_on is missing"}},
			{"unknown backend", func() error {
				_, err := cl.SetServer(t.Context(), "shp", "s1", api.ServerRequest{State: &drain})
				return err
			}, api.CodeNotFound, []string{`no backend "shp"`, `did you mean "shop"?`}},
			{"unknown server", func() error {
				_, err := cl.SetServer(t.Context(), "shop", "web9", api.ServerRequest{State: &drain})
				return err
			}, api.CodeNotFound, []string{`no server "web9"`, "skein server list shop"}},
			{"unknown state", func() error {
				_, err := cl.SetServer(t.Context(), "shop", "s1", api.ServerRequest{State: &nonsense})
				return err
			}, api.CodeBadRequest, []string{`"asleep"`, "enabled, drain or disabled"}},
			{"weight out of range", func() error {
				_, err := cl.SetServer(t.Context(), "shop", "s1", api.ServerRequest{Weight: &weight})
				return err
			}, api.CodeBadRequest, []string{"1000 is not between 0 and 256"}},
			{"nothing to change", func() error {
				_, err := cl.SetServer(t.Context(), "shop", "s1", api.ServerRequest{})
				return err
			}, api.CodeBadRequest, []string{"nothing to change"}},
			{"unknown vip", func() error { _, err := cl.ExplainVIP(t.Context(), "publik"); return err },
				api.CodeNotFound, []string{`did you mean "public"?`}},
			{"unknown node", func() error { _, err := cl.RemoveNode(t.Context(), "lb9"); return err },
				api.CodeNotFound, []string{`no node "lb9"`, `did you mean "lb1"?`}},
			{"unknown role", func() error { _, err := cl.NewToken(t.Context(), api.TokenRequest{Role: "king"}); return err },
				api.CodeBadRequest, []string{"balancer or witness"}},
			{"long token", func() error {
				_, err := cl.NewToken(t.Context(), api.TokenRequest{ExpiresSeconds: 1 << 40})
				return err
			}, api.CodeBadRequest, []string{"at most"}},
			{"no leader", func() error {
				c.Fail(api.ErrNoLeader)
				_, err := apply(t, cl, 1, shop)
				return err
			}, api.CodeNoQuorum, []string{"no leader", "skein status"}},
			{"unknown outcome", func() error {
				c.Fail(api.ErrUnknownOutcome)
				_, err := apply(t, cl, 1, shop)
				return err
			}, api.CodeUnknownOutcome, []string{"unknown", "before you try again"}},
			{"something else", func() error {
				c.Fail(errors.New("the disk is gone"))
				_, err := apply(t, cl, 1, shop)
				return err
			}, api.CodeInternal, []string{"the disk is gone"}},
		} {
			var e *api.Error
			if err := tt.do(); !errors.As(err, &e) || e.Code != tt.code {
				t.Errorf("%s: %v, want code %s", tt.name, err, tt.code)
				continue
			}
			for _, s := range tt.says {
				if !strings.Contains(e.Message+" "+e.Hint, s) {
					t.Errorf("%s: %q, hint %q; want %q in it", tt.name, e.Message, e.Hint, s)
				}
			}
		}
		if v := c.Nodes["lb1"].View(); v.Revision.Number != 1 || len(v.Servers) != 0 {
			t.Errorf("refusals changed the state: revision %d, servers %v", v.Revision.Number, v.Servers)
		}
	})
}

func TestInvalidTextComesBackWithItsPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := apitest.New(t, "lb1")
		_, err := apply(t, c.Client(t, "lb1"), 0, strings.Replace(shop, "check ", "chek ", 1))
		var e *api.Error
		if !errors.As(err, &e) || len(e.Diagnostics) == 0 {
			t.Fatalf("err = %v, want diagnostics", err)
		}
		if d := e.Diagnostics[0]; d.File != "shop.hcl" || d.Line != 9 || d.Severity != "error" || !strings.Contains(d.Source, "chek") {
			t.Errorf("diagnostic = %+v", d)
		}
	})
}

func TestServerIsReadBackAsItWasSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := apitest.New(t, "lb1", "lb2")
		cl := c.Client(t, "lb2")
		mustApply(t, cl, 0, shop)
		drain, enabled, weight, file := "drain", "enabled", 7, -1
		for _, step := range []struct {
			req    api.ServerRequest
			state  api.ServerState
			weight int
			set    bool
		}{
			{api.ServerRequest{State: &drain}, api.ServerDrain, 1, false},
			{api.ServerRequest{Weight: &weight}, api.ServerDrain, 7, true},
			{api.ServerRequest{State: &enabled}, api.ServerUp, 7, true},
			{api.ServerRequest{Weight: &file}, api.ServerUp, 1, false},
		} {
			s, err := cl.SetServer(t.Context(), "shop", "s1", step.req)
			if err != nil {
				t.Fatal(err)
			}
			if s.State != step.state || s.Weight != step.weight || s.WeightSet != step.set {
				t.Errorf("got %+v, want %+v", s, step)
			}
			if s.Requests != 2000 || len(s.Seen) != 2 {
				t.Errorf("counted %d requests as seen by %d nodes, want 2000 of 2", s.Requests, len(s.Seen))
			}
		}
	})
}

func TestPlanShowsTheDifferenceAndChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := apitest.New(t, "lb1")
		cl := c.Client(t, "lb1")
		mustApply(t, cl, 0, shop)
		p, err := cl.Plan(t.Context(), api.PlanRequest{File: "shop.hcl", Text: strings.Replace(shop, "198.51.100.22", "198.51.100.23", 1)})
		if err != nil {
			t.Fatal(err)
		}
		if p.BasedOn != 1 || len(p.Changes) != 1 || p.Changes[0].Kind != "change" || !strings.Contains(p.Changes[0].Object, `"s2"`) {
			t.Errorf("plan = %+v", p)
		}
		if n := c.Nodes["lb1"].View().Revision.Number; n != 1 {
			t.Errorf("a plan made revision %d", n)
		}
	})
}

func TestExplainAsksEveryNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := apitest.New(t, "lb1", "lb2", "lb3")
		c.Nodes["lb3"].Set(func(w *apitest.World) { w.Dead = true })
		mustApply(t, c.Client(t, "lb1"), 0, shop)
		ex, err := c.Client(t, "lb1").ExplainVIP(t.Context(), "public")
		if err != nil {
			t.Fatal(err)
		}
		want := []api.NodeExplanation{
			{Node: "lb1", Lines: []string{"does not hold it: it is not placed here"}},
			{Node: "lb2", Lines: []string{"does not hold it: it is not placed here"}},
			{Node: "lb3", Lines: []string{}, Error: "no answer within 500ms"},
		}
		if d := cmp.Diff(want, ex.Nodes); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	})
}

func TestRemovedNodeIsGoneFromTheList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := apitest.New(t, "lb1", "lb2")
		cl := c.Client(t, "lb1")
		if _, err := cl.RemoveNode(t.Context(), "lb2"); err != nil {
			t.Fatal(err)
		}
		l, err := cl.Nodes(t.Context())
		if err != nil || len(l.Nodes) != 1 {
			t.Fatalf("%d nodes, %v", len(l.Nodes), err)
		}
		var e *api.Error
		if _, err := cl.RemoveNode(t.Context(), "lb1"); !errors.As(err, &e) || e.Code != api.CodeConflict {
			t.Errorf("removing the only node: %v, want a conflict", err)
		}
		if got := c.Nodes["lb1"].World().Removed; !slices.Equal(got, []string{"lb2"}) {
			t.Errorf("removed %v", got)
		}
	})
}

func TestListsAreListsWhenEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := apitest.New(t, "lb1")
		for _, path := range []string{"/v1/vips", "/v1/backends", "/v1/servers", "/v1/nodes", "/v1/status"} {
			if body := request(t, c, "GET", path, ""); strings.Contains(body, ":null") {
				t.Errorf("%s has a null in it: %s", path, body)
			}
		}
	})
}

// request is one plain HTTP request to lb1.
func request(t *testing.T, c *apitest.Cluster, method, path, body string) string {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.Nodes["lb1"].DialAPI(ctx) }}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://lb1"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	b.ReadFrom(resp.Body)
	return resp.Status + "\n" + b.String()
}

func TestWhatIsNoRequestIsRefusedInWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := apitest.New(t, "lb1")
		for _, tt := range []struct{ method, path, body, want string }{
			{"GET", "/", "", "404 Not Found\n{\"code\":\"not_found\""},
			{"POST", "/v1/status", "", "no such resource or method: POST /v1/status"},
			{"POST", "/v1/plan", "", "400 Bad Request"},
			{"POST", "/v1/plan", `{"txt":""}`, "unknown field"},
			{"POST", "/v1/plan", `{"text":""} {}`, "there is more after the document"},
			{"POST", "/v1/plan", `{"text":"` + strings.Repeat("x", 5<<20) + `"}`, "larger than 4 MiB"},
			{"GET", "/v1/node/applied/x", "", "is not a number"},
		} {
			if got := request(t, c, tt.method, tt.path, tt.body); !strings.Contains(got, tt.want) {
				t.Errorf("%s %s: %q, want %q in it", tt.method, tt.path, got, tt.want)
			}
		}
	})
}

func TestListenReplacesADeadAgentsSocketOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "skein.sock")
	l, err := api.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 || info.Mode()&fs.ModeSocket == 0 {
		t.Errorf("mode %v, %v; want a socket with 0660", info.Mode(), err)
	}
	if _, err := api.Listen(path); err == nil || !strings.Contains(err.Error(), "another agent answers there") {
		t.Errorf("Listen beside a living agent: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as after kill -9
	l.Close()
	l, err = api.Listen(path)
	if err != nil {
		t.Fatalf("Listen after a dead agent: %v", err)
	}
	l.Close()

	if err := os.WriteFile(path, []byte("notes"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Listen(path); err == nil {
		t.Error("Listen took the place of a file")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "notes" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

// The author of a change is who the kernel says is at the other end of the socket.
func TestAuthorComesFromTheKernel(t *testing.T) {
	n := apitest.New(t, "lb1").Nodes["lb1"]
	s := api.New(n.Options())
	path := filepath.Join(t.TempDir(), "skein.sock")
	l, err := api.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l) }()
	cl := client.New(path)
	mustApply(t, cl, 0, shop)
	d, err := cl.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	me := ""
	if u, err := user.Current(); err == nil {
		me = u.Username
	}
	if d.Revision.Author != me+"@lb1" || d.Text != shop {
		t.Errorf("author %q, want %q", d.Revision.Author, me+"@lb1")
	}
	cl.Close()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve ended with %v", err)
	}
}

// FuzzRequests sends anything to everything. Whatever it is, the answer is a document, and never a fault of ours.
func FuzzRequests(f *testing.F) {
	f.Add("POST", "/v1/plan", `{"file":"a.hcl","text":"vip {"}`)
	f.Add("PUT", "/v1/config", `{"text":"","based_on":0}`)
	f.Add("PUT", "/v1/config", `{"text":"frontend \"a\" { bind = [\"127.0.0.1\"] }","based_on":18446744073709551615}`)
	f.Add("POST", "/v1/servers/a/b", `{"state":"drain","weight":-1}`)
	f.Add("POST", "/v1/servers/%2f/..%00", `{"weight":1e9}`)
	f.Add("POST", "/v1/tokens", `{"role":"witness","expires_seconds":-1,"uses":-1}`)
	f.Add("DELETE", "/v1/nodes/lb1", ``)
	f.Add("GET", "/v1/node/applied/0", ``)
	f.Add("GET", "/v1/vips/x/explain", `[[[[`)
	c := apitest.New(f, "lb1")
	c.Fail(api.ErrNoLeader)
	n := c.Nodes["lb1"]
	s := api.New(n.Options())
	f.Fuzz(func(t *testing.T, method, path, body string) {
		if !strings.HasPrefix(path, "/") || strings.Contains(path, "/applied/") && len(path) > len("/v1/node/applied/0") {
			t.Skip() // a wait for a revision of the far future takes its ten seconds
		}
		req, err := http.NewRequest(method, "http://lb1"+path, strings.NewReader(body))
		if err != nil {
			t.Skip()
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, req)
		if w.Code == http.StatusInternalServerError {
			t.Errorf("%s %s %q: %d %s", method, path, body, w.Code, w.Body)
		}
	})
}
