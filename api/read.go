package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/skeinlb/skein/state"
)

// status asks every node at once, each for at most peerTimeout, and summarizes what they said.
func (s *Server) status(ctx context.Context) Status {
	f := Facts{Self: s.opts.Self, At: time.Now(), View: s.opts.Views.Get(), Answers: map[string]Answer{}}
	f.Members = s.opts.Peers.Members()
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	own := s.opts.Report().whole()
	answers := make([]Answer, len(f.View.Nodes))
	var wg sync.WaitGroup
	for i, n := range f.View.Nodes {
		if n.Name == s.opts.Self {
			continue
		}
		wg.Go(func() {
			var r NodeReport
			if err := s.ask(ctx, n.Name, "/v1/node", &r); err != nil {
				answers[i].Error = unreachable(err)
				return
			}
			answers[i].Report = &r
		})
	}
	wg.Wait()
	for i, n := range f.View.Nodes {
		f.Answers[n.Name] = answers[i]
	}
	f.Answers[s.opts.Self] = Answer{Report: &own}
	return Summarize(f)
}

// unreachable says in short why a node could not be asked.
func unreachable(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer within " + peerTimeout.String()
	}
	return err.Error()
}

// ask gets a document from another node.
func (s *Server) ask(ctx context.Context, node, path string, doc any) error {
	return s.call(ctx, http.MethodGet, node, path, nil, doc)
}

// call sends a request to another node and reads its answer.
func (s *Server) call(ctx context.Context, method, node, path string, body, doc any) error {
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("ask %s: %w", node, err)
		}
		sent = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+node+path, sent)
	if err != nil {
		return fmt.Errorf("ask %s: %w", node, err)
	}
	resp, err := s.peers.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return err
	}
	defer resp.Body.Close()
	answer := io.LimitReader(resp.Body, 16<<20)
	if resp.StatusCode != http.StatusOK {
		var e Error
		if json.NewDecoder(answer).Decode(&e) != nil || e.Message == "" {
			return fmt.Errorf("unexpected answer %s", resp.Status)
		}
		return &e
	}
	if err := json.NewDecoder(answer).Decode(doc); err != nil {
		return fmt.Errorf("read its answer: %w", err)
	}
	return nil
}

func (s *Server) getStatus(w http.ResponseWriter, r *http.Request) error {
	return answer(w, s.status(r.Context()))
}

func (s *Server) getNode(w http.ResponseWriter, r *http.Request) error {
	return answer(w, s.opts.Report().whole())
}

func (s *Server) getVIPs(w http.ResponseWriter, r *http.Request) error {
	st := s.status(r.Context())
	return answer(w, VIPList{AsOf: st.AsOf, VIPs: st.VIPs})
}

func (s *Server) getBackends(w http.ResponseWriter, r *http.Request) error {
	st := s.status(r.Context())
	return answer(w, BackendList{AsOf: st.AsOf, Backends: st.Backends})
}

func (s *Server) getServers(w http.ResponseWriter, r *http.Request) error {
	st := s.status(r.Context())
	l := ServerList{AsOf: st.AsOf, Servers: []ServerStatus{}}
	for _, b := range st.Backends {
		l.Servers = append(l.Servers, b.Servers...)
	}
	return answer(w, l)
}

func (s *Server) getNodes(w http.ResponseWriter, r *http.Request) error {
	st := s.status(r.Context())
	return answer(w, NodeList{AsOf: st.AsOf, Nodes: st.Nodes})
}

// asOf is the freshness of an answer that needs no other node.
func (s *Server) asOf() AsOf {
	own, v := s.opts.Report(), s.opts.Views.Get()
	return AsOf{
		Node: s.opts.Self, At: time.Now(), Index: max(v.Index, own.Raft.AppliedIndex),
		Leader: own.Raft.Leader, Quorum: own.Raft.Quorum,
	}
}

func (s *Server) getConfig(w http.ResponseWriter, r *http.Request) error {
	v := s.opts.Views.Get()
	return answer(w, ConfigDocument{AsOf: s.asOf(), Revision: revisionOf(v), Text: string(v.Revision.Text)})
}

// getNodeExplain answers for this node alone; getExplain asks all.
func (s *Server) getNodeExplain(w http.ResponseWriter, r *http.Request) error {
	return answer(w, s.explainSelf(r.PathValue("vip")))
}

func (s *Server) explainSelf(vip string) NodeExplanation {
	lines := s.opts.Explain(vip)
	if lines == nil {
		lines = []string{}
	}
	return NodeExplanation{Node: s.opts.Self, Lines: lines}
}

func (s *Server) getExplain(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("vip")
	v := s.opts.Views.Get()
	if v.Config == nil || v.Config.VIP(name) == nil {
		return s.unknownVIP(name)
	}
	st := s.status(r.Context())
	ex := Explanation{AsOf: st.AsOf, Nodes: make([]NodeExplanation, len(st.Nodes))}
	if i := slices.IndexFunc(st.VIPs, func(v VIPStatus) bool { return v.Name == name }); i >= 0 {
		ex.VIP = st.VIPs[i]
	}
	ctx, cancel := context.WithTimeout(r.Context(), peerTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i, n := range st.Nodes {
		if n.Name == s.opts.Self {
			ex.Nodes[i] = s.explainSelf(name)
			continue
		}
		wg.Go(func() {
			ex.Nodes[i] = NodeExplanation{Node: n.Name, Lines: []string{}}
			if err := s.ask(ctx, n.Name, "/v1/node/explain/"+url.PathEscape(name), &ex.Nodes[i]); err != nil {
				ex.Nodes[i].Error = unreachable(err)
			}
		})
	}
	wg.Wait()
	for i := range st.Nodes {
		ex.Nodes[i].Lines = append(ex.Nodes[i].Lines, st.against(&st.Nodes[i], name)...)
	}
	if v.Placements[name].Node != "" {
		ex.Next = state.Target(v, st.health(), name)
	}
	return answer(w, ex)
}

func (s *Server) unknownVIP(name string) error {
	var names []string
	if c := s.opts.Views.Get().Config; c != nil {
		for _, v := range c.VIPs {
			names = append(names, v.Name)
		}
	}
	return errorf(CodeNotFound, suggest(name, names, "`skein vip list` shows all"), "there is no vip %q", name)
}

// getNodeApplied waits until this node runs the revision, or knows that it will not.
func (s *Server) getNodeApplied(w http.ResponseWriter, r *http.Request) error {
	rev, err := strconv.ParseUint(r.PathValue("revision"), 10, 64)
	if err != nil {
		return errorf(CodeBadRequest, "", "revision %q is not a number", r.PathValue("revision"))
	}
	return answer(w, s.applied(r.Context(), rev))
}

func (s *Server) applied(ctx context.Context, rev uint64) NodeApplied {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	run, err := s.opts.Running.Wait(ctx, func(r Running) bool { return r.Revision >= rev || r.Tried >= rev })
	a := NodeApplied{Node: s.opts.Self, Running: run.Revision, OK: run.Revision >= rev, TookMs: time.Since(start).Milliseconds()}
	switch {
	case a.OK:
	case err != nil:
		a.Error = "not tried within " + applyTimeout.String()
	default:
		a.Error = run.Error
	}
	return a
}
