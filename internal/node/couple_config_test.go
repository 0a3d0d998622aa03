package node

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/plan"
	"github.com/skeinlb/skein/healthcheck"
	"github.com/skeinlb/skein/state"
)

// slowEngine is an engine in which something happens while a configuration is being put in force.
type slowEngine struct {
	Engine
	meanwhile func()
	admin     map[string]plan.Admin
}

func (e *slowEngine) Apply(*config.Config) error { e.meanwhile(); return nil }

func (e *slowEngine) SetAdmin(backend, server string, a plan.Admin, _ int) { e.admin[server] = a }

func (e *slowEngine) SetUsable(string, string, bool) {}

// An operator drains a server while the revision before it is being put in force. The server is drained, and stays it.
func TestWhatIsSetDuringAChangeOfConfigurationStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const text = "frontend \"f\" {\n  bind = [\"127.0.0.1\"]\n  http = 80\n  backend = \"b\"\n}\nbackend \"b\" {\n  server \"one\" { address = \"127.0.0.1:1\" }\n}\n"
		c, diags := config.Parse("t.hcl", []byte(text))
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		n := &Node{machine: state.New(), checker: healthcheck.New(slog.New(slog.DiscardHandler)), log: slog.New(slog.DiscardHandler)}
		index := uint64(0)
		must := func(cmd state.Command) {
			t.Helper()
			index++
			b, _ := n.machine.Apply(index, state.Encode(cmd)).([]byte)
			if r, err := state.DecodeResult(b); err != nil || r.Err() != nil {
				t.Fatal(err, r.Err())
			}
		}
		must(state.Found{ClusterID: "c1", Gossip: make([]byte, 32), Heartbeat: make([]byte, 32), Node: state.Node{
			Name: "lb1", Advertise: netip.MustParseAddrPort("198.51.100.1:7940"), Role: state.Balancer, Fingerprint: "f1"}})
		must(state.SetConfig{Text: []byte(text), Scope: state.ScopeOf(c)})
		e := &slowEngine{admin: map[string]plan.Admin{}}
		n.engine = e
		e.meanwhile = func() {
			must(state.SetServer{Backend: "b", Server: "one", State: state.Drain})
			synctest.Wait() // until the others have told of it
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go n.coupleAdmin(ctx)
		synctest.Wait()
		if err := n.put(n.machine.Views().Get()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := e.admin["one"]; got != plan.Drain {
			t.Errorf("the engine was told %v last, want %v", got, plan.Drain)
		}
	})
}
