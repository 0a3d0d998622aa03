package node

import (
	"bytes"
	"context"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/plan"
	"github.com/skeinlb/skein/healthcheck"
	"github.com/skeinlb/skein/state"
)

// coupleConfig: a new revision in the log -> the engine and the checks. What the engine refuses leaves the old plan serving, and is
// shown as running < committed with the reason; it is tried again, since what was in its way, say another program's port, may go.
func (n *Node) coupleConfig(ctx context.Context) {
	var tried uint64
	var text []byte
	var again <-chan time.Time // nil: it runs, or never will
	for {
		v, viewed := n.machine.Views().Watch()
		// The number alone does not do: a cluster that was recovered may give it a second time, to another text.
		if v.Revision.Number != tried || !bytes.Equal(v.Revision.Text, text) {
			tried, text, again = v.Revision.Number, v.Revision.Text, nil
			if !n.putOrSay(v) && v.ConfigError == nil {
				again = time.After(putAgain)
			}
		}
		select {
		case <-viewed:
		case <-again:
			tried = 0
		case <-ctx.Done():
			return
		}
	}
}

// putAgain is between two attempts to put the same configuration in force.
const putAgain = 5 * time.Second

// putOrSay puts the newest configuration in force, or says why it is not. An attempt that fails like the one before is no news.
func (n *Node) putOrSay(v *state.View) (ok bool) {
	tried, before := v.Revision.Number, n.running.Get()
	err := v.ConfigError
	if err == nil {
		err = n.put(v)
	}
	if err != nil && before.Tried == tried && before.Error == err.Error() {
		return false
	}
	n.running.Update(func(r api.Running) api.Running {
		r.Tried, r.Error = tried, ""
		if err != nil {
			r.Error = err.Error()
			return r
		}
		r.Revision = tried
		return r
	})
	if err != nil {
		n.log.Error("configuration not taken", "revision", tried, "running", n.running.Get().Revision, "why", err)
		return false
	}
	n.log.Info("configuration runs", "revision", tried, "by", v.Revision.Author, "message", v.Revision.Message)
	return true
}

// put hands a configuration to the engine and the checks. A witness runs no traffic: every configuration suits it.
func (n *Node) put(v *state.View) error {
	if n.engine == nil || v.Config == nil {
		return nil
	}
	n.tell(n.tellCertificates) // which the configuration may name
	if err := n.engine.Apply(v.Config); err != nil {
		return err
	}
	// New servers start as the engine's defaults say; what is known of them is told again, because the couplers of verdicts
	// and admin state may have spoken before the engine knew the names.
	n.tell(n.tellAdmin)
	n.tell(n.tellLists)
	n.checker.Set(healthcheck.Targets(v.Config))
	n.tell(n.tellVerdicts)
	return nil
}

// tell has f tell the engine of the newest view, one f at a time: while one coupler puts a view in force, which takes a while, another one
// may have told of a newer one, which nobody would tell of again.
func (n *Node) tell(f func(*state.View)) {
	n.telling.Lock()
	defer n.telling.Unlock()
	f(n.machine.Views().Get())
}

// check asks the engine whether it could run c.
func (n *Node) check(c *config.Config) error {
	if n.engine == nil {
		return nil
	}
	return n.engine.Check(c)
}

// coupleVerdicts: a change of a server's health -> the engine.
func (n *Node) coupleVerdicts(ctx context.Context) {
	if n.engine == nil {
		return
	}
	n.checker.Verdicts().Each(ctx, func(map[healthcheck.Key]healthcheck.Verdict) { n.tell(n.tellVerdicts) })
}

func (n *Node) tellVerdicts(*state.View) {
	for k, v := range n.checker.Verdicts().Get() {
		n.engine.SetUsable(k.Backend, k.Server, v.Up)
	}
}

// trafficFailed: a connection of traffic that failed -> the checks.
func (n *Node) trafficFailed(backend, server string, _ engine.Failure) {
	n.checker.Failed(healthcheck.Key{Backend: backend, Server: server})
}

// coupleAdmin: a drain, a weight -> the engine.
func (n *Node) coupleAdmin(ctx context.Context) {
	if n.engine == nil {
		return
	}
	n.machine.Views().Each(ctx, func(*state.View) { n.tell(n.tellAdmin) })
}

func (n *Node) tellAdmin(v *state.View) {
	if v.Config == nil {
		return
	}
	for _, b := range v.Config.Backends {
		for _, s := range b.Servers {
			a := v.Admin(b.Name, s.Name)
			n.engine.SetAdmin(b.Name, s.Name, adminOf(a.State), a.Weight)
		}
	}
}

func adminOf(s state.AdminState) plan.Admin {
	switch s {
	case state.Drain:
		return plan.Drain
	case state.Disabled:
		return plan.Disabled
	}
	return plan.Enabled
}
