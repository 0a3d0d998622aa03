package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/skeinlb/skein/state"
)

// Bounds of the API. A configuration of 2 MiB is at most twice that as JSON.
const (
	maxBody      = 4 << 20
	maxHead      = 64 << 10
	headTimeout  = 5 * time.Second
	readTimeout  = 30 * time.Second
	writeTimeout = 2 * time.Minute // an apply waits for slow nodes
	idleTimeout  = 2 * time.Minute
	stopTimeout  = 2 * time.Second
	peerTimeout  = 500 * time.Millisecond // to ask another node for its report
	applyTimeout = 10 * time.Second       // to wait for the nodes to run a new revision
	startTimeout = 3 * time.Second        // for a node that has just started to hear of its cluster
	viewTimeout  = time.Second            // for this node to see what the leader has committed
)

// Server answers the admin API. Any number of Serve calls may run at once.
type Server struct {
	opts  Options
	mux   *http.ServeMux
	peers *http.Client
}

// New returns a server of o. It listens nowhere yet.
func New(o Options) *Server {
	s := &Server{opts: o, mux: http.NewServeMux()}
	s.peers = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			node, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return o.Peers.Dial(ctx, node)
		},
		MaxIdleConnsPerHost: 2,
		IdleConnTimeout:     time.Minute,
	}}
	s.routes()
	return s
}

func (s *Server) routes() {
	for pattern, h := range map[string]handler{
		"GET /v1/status":                        s.getStatus,
		"GET /v1/node":                          s.getNode,
		"GET /v1/node/explain/{vip}":            s.getNodeExplain,
		"GET /v1/node/applied/{revision}":       s.getNodeApplied,
		"GET /v1/config":                        s.getConfig,
		"PUT /v1/config":                        s.putConfig,
		"POST /v1/plan":                         s.postPlan,
		"GET /v1/vips":                          s.getVIPs,
		"GET /v1/vips/{vip}/explain":            s.getExplain,
		"GET /v1/backends":                      s.getBackends,
		"GET /v1/servers":                       s.getServers,
		"POST /v1/servers/{backend}/{server}":   s.postServer,
		"POST /v1/vips/{vip}/move":              s.postMove,
		"POST /v1/nodes/{node}":                 s.postNode,
		"GET /v1/nodes":                         s.getNodes,
		"POST /v1/nodes/{node}/upgrade":         s.postUpgrade,
		"DELETE /v1/nodes/{node}":               s.deleteNode,
		"GET /v1/certificates":                  s.getCertificates,
		"GET /v1/certificates/{certificate}":    s.getCertificate,
		"PUT /v1/certificates/{certificate}":    s.putCertificate,
		"DELETE /v1/certificates/{certificate}": s.deleteCertificate,
		"POST /v1/tokens":                       s.postToken,
		"GET /v1/lists":                         s.getLists,
		"POST /v1/lists/{list}":                 s.postList,
	} {
		s.mux.Handle(pattern, s.handle(h))
	}
	s.mux.Handle("/", s.handle(func(w http.ResponseWriter, r *http.Request) error {
		return errorf(CodeNotFound, "GET /v1/status is a good start", "no such resource or method: %s %s", r.Method, r.URL.Path)
	}))
}

// Handler returns the API as a handler, for tests.
func (s *Server) Handler() http.Handler { return s.mux }

// Listen opens the unix socket at path for the owner and the group of the data directory. It replaces what a dead agent left and
// refuses to replace a living one's.
func Listen(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		// A plain file refuses connections as a dead agent's socket does.
		if info, statErr := os.Lstat(path); statErr == nil && info.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("listen on %s: a file that is no socket is in the way", path)
		}
		if c, dialErr := net.DialTimeout("unix", path, time.Second); dialErr == nil {
			c.Close()
			return nil, fmt.Errorf("listen on %s: another agent answers there", path)
		} else if !errors.Is(dialErr, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("listen on %s: it exists: %w", path, dialErr)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("remove the socket of a dead agent: %w", err)
		}
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("set the mode of %s: %w", path, err)
	}
	return l, nil
}

// Serve answers on l until ctx ends, then lets requests under way finish for a moment. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.mux,
		ReadHeaderTimeout: headTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHead,
		ConnContext:       withCaller,
		ErrorLog:          slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	done := make(chan struct{})
	go func() { // ends with ctx or with Serve
		defer close(done)
		select {
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
			defer cancel()
			if srv.Shutdown(ctx) != nil {
				srv.Close()
			}
		case <-stopped:
		}
	}()
	err := srv.Serve(plainListener{l})
	close(stopped)
	<-done
	s.peers.CloseIdleConnections()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the API on %s: %w", l.Addr(), err)
}

// handler answers a request, or returns why not.
type handler func(http.ResponseWriter, *http.Request) error

// handle turns a handler's error into an answer. It is the only place that does.
func (s *Server) handle(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		err := h(w, r)
		if err == nil {
			return
		}
		e := asError(err)
		if e.Code == CodeInternal {
			s.opts.Log.Error("api request failed", "method", r.Method, "path", r.URL.Path, "err", err)
		}
		writeJSON(w, e.Status(), e)
	})
}

// asError gives err a code.
func asError(err error) *Error {
	var (
		e       *Error
		refused *state.Refusal
	)
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &refused):
		return refusal(refused)
	case errors.Is(err, ErrNoLeader):
		return errorf(CodeNoQuorum, "reads still work; `skein status` says who is missing", "nothing can be changed: %v", err)
	case errors.Is(err, ErrUnknownOutcome):
		return errorf(CodeUnknownOutcome, "look with `skein status` or `skein show` before you try again", "%v", err)
	case errors.Is(err, context.DeadlineExceeded):
		return errorf(CodeNoQuorum, "look with `skein status` before you try again", "it took too long: %v", err)
	}
	return errorf(CodeInternal, "", "%v", err)
}

// refusal says what the replicated state refused, in the words of an operator.
func refusal(r *state.Refusal) *Error {
	switch {
	case errors.Is(r, state.ErrStaleRevision):
		return &Error{
			Code: CodeStaleRevision, Revision: r.Result.Revision,
			Message: fmt.Sprintf("somebody else applied meanwhile: the current revision is %d", r.Result.Revision),
			Hint:    "look with `skein show` and `skein plan FILE`, then apply again",
		}
	case errors.Is(r, state.ErrUnknownServer):
		return errorf(CodeNotFound, "`skein server list` shows all", "%v", r)
	case errors.Is(r, state.ErrUnknownList):
		return errorf(CodeNotFound, "`skein list show` shows all", "%v", r)
	case errors.Is(r, state.ErrUnknownNode):
		return errorf(CodeNotFound, "`skein node list` shows all", "%v", r)
	case errors.Is(r, state.ErrUnknownCertificate):
		return errorf(CodeNotFound, "`skein cert list` shows all", "%v", r)
	case errors.Is(r, state.ErrUnknownVIP):
		return errorf(CodeNotFound, "`skein vip list` shows all", "%v", r)
	case errors.Is(r, state.ErrStaleEpoch):
		return errorf(CodeConflict, "`skein vip list` shows where it is now", "somebody else moved it meanwhile: %v", r)
	case errors.Is(r, state.ErrInvalid):
		return errorf(CodeBadRequest, "", "%v", r)
	case errors.Is(r, state.ErrNotFounded):
		return errorf(CodeNoQuorum, "try again in a moment; `skein status` says how things are", "the agent has just started: %v yet", r)
	}
	return errorf(CodeConflict, "", "%v", r)
}

func writeJSON(w http.ResponseWriter, status int, doc any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.Encode(doc) // an error here is a client that went away
}

func answer(w http.ResponseWriter, doc any) error {
	writeJSON(w, http.StatusOK, doc)
	return nil
}

// decode reads a request's body: one JSON document of known fields and nothing after it.
func decode(r io.Reader, doc any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	err := d.Decode(doc)
	if err == nil {
		if _, end := d.Token(); end == io.EOF {
			return nil
		} else if err = end; err == nil {
			err = errors.New("there is more after the document")
		}
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return errorf(CodeBadRequest, "", "the request is larger than %d MiB", maxBody>>20)
	}
	return errorf(CodeBadRequest, "", "the request is not the JSON that it should be: %v", err)
}
