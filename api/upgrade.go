package api

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// upgradeTimeout bounds how long a process that is to follow an agent may take until it says that it is ready.
const upgradeTimeout = 15 * time.Second

// UpgradeRequest asks for another process in the place of a node's agent: of the binary that lies at its path. A zero DrainSeconds is
// five minutes.
type UpgradeRequest struct {
	DrainSeconds float64 `json:"drain_seconds,omitempty"` // for what is established with the former process
}

// Successor is a process that is ready to follow an agent, and does so next.
type Successor struct {
	Node         string  `json:"node"`
	From         string  `json:"from"` // version
	To           string  `json:"to"`
	PID          int     `json:"pid"`
	DrainSeconds float64 `json:"drain_seconds"`
}

// ClusterUpgraded is what `skein cluster upgrade` has done, in its order.
type ClusterUpgraded struct {
	Nodes []Successor `json:"nodes"`
}

// Program is the binary that an agent runs, and the one that an upgrade would start.
type Program struct {
	Path    string         `json:"path"`              // "": this agent cannot be upgraded in place
	Version string         `json:"version"`           // of what lies there; "" when it cannot be asked
	Level   int            `json:"level,omitempty"`   // the newest level of commands that it applies; 0 as Version
	Differs bool           `json:"differs"`           // another file than the one that runs
	Problem string         `json:"problem,omitempty"` // why it cannot be asked
	Failed  *FailedUpgrade `json:"failed,omitempty"`  // the attempt after which this process went on
}

// FailedUpgrade is an upgrade after which the former binary went on.
type FailedUpgrade struct {
	PID     int       `json:"pid"` // of the process that was to follow
	Version string    `json:"version"`
	Why     string    `json:"why"`
	At      time.Time `json:"at"`
}

// UpgradeRefused turns why an upgrade was not begun into an answer. Nothing has changed then.
func UpgradeRefused(hint string, err error) error {
	return errorf(CodeConflict, hint, "not upgraded, and nothing has changed: %v", err)
}

// Outdated turns a write that the version of some node does not know into an answer.
func Outdated(err error) error {
	return errorf(CodeConflict, "", "nothing was changed: %v", err)
}

// postUpgrade upgrades this node, or has another one upgrade itself.
func (s *Server) postUpgrade(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("node")
	var req UpgradeRequest
	if err := decode(r.Body, &req); err != nil {
		return err
	}
	drain, err := drainOf(req.DrainSeconds)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), upgradeTimeout)
	defer cancel()
	v := s.opts.Views.Get()
	if _, ok := v.Node(name); !ok {
		var names []string
		for _, n := range v.Nodes {
			names = append(names, n.Name)
		}
		return errorf(CodeNotFound, suggest(name, names, "`skein node list` shows all"), "there is no node %q", name)
	}
	var next Successor
	if name == s.opts.Self {
		next, err = s.opts.Operations.Upgrade(ctx, drain)
	} else if err = s.call(ctx, http.MethodPost, name, r.URL.Path, req, &next); err != nil {
		var said *Error
		if !errors.As(err, &said) {
			err = errorf(CodeConflict, "`skein node show "+name+"`", "ask %s: %v", name, err)
		}
	}
	if err != nil {
		return err
	}
	s.opts.Log.Info("node is upgraded", "node", name, "from", next.From, "to", next.To, "pid", next.PID, "by", s.author(r))
	return answer(w, next)
}
