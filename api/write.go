package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/state"
)

// propose sends a command through the log and waits until this node sees the result, so that a read after a write through the
// same node shows it.
func (s *Server) propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	s.started(ctx)
	b, index, err := s.opts.Proposer.Propose(ctx, state.Encode(cmd))
	if err != nil {
		return state.Result{}, err
	}
	res, err := state.DecodeResult(b)
	if err != nil {
		return state.Result{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	if err := res.Err(); err != nil {
		return res, err
	}
	if res.Index == 0 {
		res.Index = index
	}
	wait, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	// A node that lags is no failure of the write: the answer is then as old as its as_of says.
	s.opts.Views.Wait(wait, func(v *state.View) bool { return v.Index >= res.Index })
	return res, nil
}

// started gives a node that has just started a moment to read what its cluster is. Who asks too early shall wait, not fail.
func (s *Server) started(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s.opts.Views.Wait(ctx, (*state.View).Founded) // if it does not come, the proposal says why
}

// validate parses a text and asks the engine to compile it.
func (s *Server) validate(file, text string) (*config.Config, []Diagnostic, error) {
	if file == "" {
		file = "config"
	}
	conf, ds := config.Parse(file, []byte(text))
	found := Diagnostics(ds)
	if conf == nil {
		return nil, nil, &Error{
			Code: CodeInvalidConfig, Diagnostics: found,
			Message: fmt.Sprintf("%s is not valid; nothing was changed", file),
		}
	}
	if err := s.certificatesThere(file, conf); err != nil {
		return nil, nil, err
	}
	if err := s.opts.Check(conf); err != nil {
		return nil, nil, &Error{
			Code: CodeInvalidConfig, Diagnostics: found,
			Message: fmt.Sprintf("the engine refuses %s: %v; nothing was changed", file, err),
		}
	}
	return conf, found, nil
}

func (s *Server) postPlan(w http.ResponseWriter, r *http.Request) error {
	var req PlanRequest
	if err := decode(r.Body, &req); err != nil {
		return err
	}
	conf, warnings, err := s.validate(req.File, req.Text)
	if err != nil {
		return err
	}
	v := s.opts.Views.Get()
	return answer(w, Plan{AsOf: s.asOf(), BasedOn: v.Revision.Number, Changes: Changes(v.Config, conf), Warnings: warnings, Notes: append(listNotes(v, conf), preferNotes(v, conf)...)})
}

// putConfig commits a configuration and then tells, line by line, which node runs it. The answer is a stream of ApplyEvents.
func (s *Server) putConfig(w http.ResponseWriter, r *http.Request) error {
	var req ApplyRequest
	if err := decode(r.Body, &req); err != nil {
		return err
	}
	if req.BasedOn == nil {
		return errorf(CodeBadRequest, "GET /v1/config says the current one", "based_on is missing: which revision was the text made from?")
	}
	conf, _, err := s.validate(req.File, req.Text)
	if err != nil {
		return err
	}
	author, at := s.author(r), time.Now()
	res, err := s.propose(r.Context(), state.SetConfig{
		Text: []byte(req.Text), Scope: state.ScopeOf(conf), Message: req.Message, Author: author, At: at, BasedOn: *req.BasedOn,
	})
	if err != nil {
		return err
	}
	s.opts.Log.Info("configuration committed", "revision", res.Revision, "was", *req.BasedOn, "by", author, "message", req.Message)

	w.Header().Set("Content-Type", "application/x-ndjson")
	enc, flush := json.NewEncoder(w), http.NewResponseController(w)
	emit := func(e ApplyEvent) {
		enc.Encode(e) // an error here is a client that went away; the revision is committed all the same
		flush.Flush()
	}
	rev := Revision{Number: res.Revision, Message: req.Message, Author: author, At: at}
	notes := append(slices.DeleteFunc([]string{res.Message}, func(s string) bool { return s == "" }), preferNotes(s.opts.Views.Get(), conf)...)
	emit(ApplyEvent{Committed: &Committed{Revision: rev, Notes: strings.Join(notes, "; ")}})
	done := ApplyDone{Revision: res.Revision}
	for a := range s.everyoneApplied(r.Context(), res.Revision) {
		done.Nodes++
		if a.OK {
			done.Applied++
		}
		emit(ApplyEvent{Node: &a})
	}
	emit(ApplyEvent{Done: &done})
	return nil
}

// everyoneApplied asks all nodes to wait for a revision, and yields their answers as they come.
func (s *Server) everyoneApplied(ctx context.Context, rev uint64) <-chan NodeApplied {
	nodes := s.opts.Views.Get().Nodes
	answers := make(chan NodeApplied, len(nodes))
	alive := map[string]bool{}
	for _, m := range s.opts.Peers.Members() {
		alive[m.Name] = m.Alive
	}
	start := time.Now()
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() {
			if n.Name == s.opts.Self {
				answers <- s.applied(ctx, rev)
				return
			}
			limit := applyTimeout + peerTimeout
			if !alive[n.Name] {
				limit = peerTimeout // it will take the revision from the log when it is back
			}
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			a := NodeApplied{Node: n.Name}
			if err := s.ask(ctx, n.Name, fmt.Sprintf("/v1/node/applied/%d", rev), &a); err != nil {
				a = NodeApplied{Node: n.Name, Error: "cannot be asked: " + unreachable(err)}
			}
			a.TookMs = time.Since(start).Milliseconds()
			answers <- a
		})
	}
	go func() { // ends with the slowest answer, which is bounded
		wg.Wait()
		close(answers)
	}()
	return answers
}

func (s *Server) postServer(w http.ResponseWriter, r *http.Request) error {
	backend, server := r.PathValue("backend"), r.PathValue("server")
	var req ServerRequest
	if err := decode(r.Body, &req); err != nil {
		return err
	}
	if err := s.knownServer(backend, server); err != nil {
		return err
	}
	cmd := state.SetServer{Backend: backend, Server: server, Weight: req.Weight, By: s.author(r), At: time.Now()}
	switch {
	case req.State == nil && req.Weight == nil:
		return errorf(CodeBadRequest, "", "neither state nor weight is given: there is nothing to change")
	case req.Weight != nil && (*req.Weight < -1 || *req.Weight > 256):
		return errorf(CodeBadRequest, "", "weight %d is not between 0 and 256 (-1 is the file's)", *req.Weight)
	case req.State != nil:
		cmd.State = state.AdminState(*req.State)
		if !slices.Contains([]state.AdminState{state.Enabled, state.Drain, state.Disabled}, cmd.State) {
			return errorf(CodeBadRequest, "use enabled, drain or disabled", "unknown server state %q", *req.State)
		}
	}
	if _, err := s.propose(r.Context(), cmd); err != nil {
		return err
	}
	is := s.opts.Views.Get().Admin(backend, server)
	s.opts.Log.Info("server set", "backend", backend, "server", server, "state", is.State, "weight", is.Weight, "by", cmd.By)
	for _, b := range s.status(r.Context()).Backends {
		if b.Name != backend {
			continue
		}
		for _, srv := range b.Servers {
			if srv.Name == server {
				return answer(w, srv)
			}
		}
	}
	return errorf(CodeNotFound, "", "server %s/%s was removed from the configuration meanwhile", backend, server)
}

// knownServer refuses a name that is not in this node's view, with a suggestion that the log could not give.
func (s *Server) knownServer(backend, server string) error {
	conf := s.opts.Views.Get().Config
	if conf == nil {
		return errorf(CodeNotFound, "`skein apply FILE`", "there is no server %s/%s: no configuration was applied yet", backend, server)
	}
	b := conf.Backend(backend)
	if b == nil {
		var names []string
		for _, b := range conf.Backends {
			names = append(names, b.Name)
		}
		return errorf(CodeNotFound, suggest(backend, names, "`skein backend list` shows all"), "there is no backend %q", backend)
	}
	var names []string
	for _, srv := range b.Servers {
		if srv.Name == server {
			return nil
		}
		names = append(names, srv.Name)
	}
	hint := suggest(server, names, "`skein server list "+backend+"` shows all")
	return errorf(CodeNotFound, hint, "there is no server %q in backend %q", server, backend)
}

func (s *Server) deleteNode(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("node")
	v := s.opts.Views.Get()
	if _, ok := v.Node(name); !ok {
		var names []string
		for _, n := range v.Nodes {
			names = append(names, n.Name)
		}
		return errorf(CodeNotFound, suggest(name, names, "`skein node list` shows all"), "there is no node %q", name)
	}
	if len(v.Nodes) == 1 {
		return errorf(CodeConflict, "stop its agent and remove its data_dir instead", "%s is the only node: without it there is no cluster", name)
	}
	if err := s.opts.Operations.RemoveNode(r.Context(), name); err != nil {
		return err
	}
	s.opts.Log.Info("node removed", "node", name, "by", s.author(r))
	return answer(w, Removed{Node: name})
}

// Limits of a token: long enough to install a host, short enough to forget.
const (
	tokenDefault = time.Hour
	tokenLongest = 7 * 24 * time.Hour
	tokenUses    = 100
)

func (s *Server) postToken(w http.ResponseWriter, r *http.Request) error {
	var req TokenRequest
	if err := decode(r.Body, &req); err != nil {
		return err
	}
	if req.Role == "" {
		req.Role = string(state.Balancer)
	}
	if req.Uses == 0 {
		req.Uses = 1
	}
	expires := tokenDefault
	if req.ExpiresSeconds != 0 {
		if req.ExpiresSeconds < 0 || req.ExpiresSeconds > int64(tokenLongest/time.Second) {
			return errorf(CodeBadRequest, "", "a token lives for at least a second and at most %d days", tokenLongest/(24*time.Hour))
		}
		expires = time.Duration(req.ExpiresSeconds) * time.Second
	}
	switch {
	case req.Role != string(state.Balancer) && req.Role != string(state.Witness):
		return errorf(CodeBadRequest, "use balancer or witness", "unknown role %q", req.Role)
	case req.Uses < 1 || req.Uses > tokenUses:
		return errorf(CodeBadRequest, "", "a token is for 1 to %d hosts, not %d", tokenUses, req.Uses)
	}
	t, err := s.opts.Operations.NewToken(r.Context(), req.Role, expires, req.Uses)
	if err != nil {
		return err
	}
	s.opts.Log.Info("join token made", "id", t.ID, "role", req.Role, "uses", req.Uses, "expires", expires, "by", s.author(r))
	return answer(w, t)
}
