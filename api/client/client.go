// Package client is the typed client of a node's admin API, over its unix socket or over the cluster's mutual TLS.
//
// It knows the documents of package api and nothing else: no retries, no cache, no output. The one rule: whatever goes wrong is
// either an *api.Error, which the node has answered, or an *Unreachable, which says what to try next.
package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/skeinlb/skein/api"
)

// DefaultSocket is where an agent listens unless its data_dir says otherwise.
const DefaultSocket = "/var/lib/skein/skein.sock"

// maxAnswer bounds what is read of one answer: a status of a large cluster is some hundred KiB.
const maxAnswer = 64 << 20

// Client asks one node. Any goroutine may use it.
type Client struct {
	http  *http.Client
	where string
}

// New returns a client of the agent that listens on the unix socket at path. It connects with the first request.
func New(path string) *Client {
	var d net.Dialer
	return NewDial(path, func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "unix", path) })
}

// NewTLS returns a client of the node at addr ("host:port"), which both sides enter with certificates of the cluster's CA.
func NewTLS(addr string, conf *tls.Config) *Client {
	d := tls.Dialer{Config: conf}
	return NewDial(addr, func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) })
}

// NewDial returns a client that connects with dial. Messages name the other end as where.
func NewDial(where string, dial func(context.Context) (net.Conn, error)) *Client {
	return &Client{
		where: where,
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
				defer cancel()
				return dial(ctx)
			},
			MaxIdleConns:    2,
			IdleConnTimeout: 30 * time.Second,
		}},
	}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Unreachable says that no node answered, and what to do about it.
type Unreachable struct {
	Where string // the socket or address
	Err   error
}

func (e *Unreachable) Error() string {
	switch {
	case errors.Is(e.Err, fs.ErrNotExist):
		return fmt.Sprintf("no agent on %s: the socket does not exist", e.Where)
	case errors.Is(e.Err, syscall.ECONNREFUSED):
		return fmt.Sprintf("no agent on %s: nobody listens there", e.Where)
	case errors.Is(e.Err, fs.ErrPermission):
		return fmt.Sprintf("no access to the agent on %s: permission denied", e.Where)
	case errors.Is(e.Err, context.DeadlineExceeded):
		return fmt.Sprintf("the agent on %s did not answer in time", e.Where)
	}
	return fmt.Sprintf("ask the agent on %s: %v", e.Where, e.Err)
}

func (e *Unreachable) Unwrap() error { return e.Err }

// Hint is the next command to type.
func (e *Unreachable) Hint() string {
	switch {
	case errors.Is(e.Err, fs.ErrPermission):
		return "run it as root (sudo skein ...) or as a member of the group that owns the socket"
	case errors.Is(e.Err, context.DeadlineExceeded):
		return "ask another node, or look at the agent's log on this one"
	}
	if _, _, err := net.SplitHostPort(e.Where); err == nil {
		return "is the agent there running, and is its port open to this host? ask another node, or leave --address out to ask this one"
	}
	return "is the agent running? start it with `systemctl start skein` (or `skein agent`), or name its socket with --socket"
}

// Status returns the whole cluster on one page.
func (c *Client) Status(ctx context.Context) (*api.Status, error) {
	return get[api.Status](ctx, c, "/v1/status")
}

// Node returns the node's own report.
func (c *Client) Node(ctx context.Context) (*api.NodeReport, error) {
	return get[api.NodeReport](ctx, c, "/v1/node")
}

// Config returns the stored configuration.
func (c *Client) Config(ctx context.Context) (*api.ConfigDocument, error) {
	return get[api.ConfigDocument](ctx, c, "/v1/config")
}

// VIPs lists the virtual addresses.
func (c *Client) VIPs(ctx context.Context) (*api.VIPList, error) {
	return get[api.VIPList](ctx, c, "/v1/vips")
}

// ExplainVIP asks every node why it holds the VIP or does not.
func (c *Client) ExplainVIP(ctx context.Context, name string) (*api.Explanation, error) {
	return get[api.Explanation](ctx, c, "/v1/vips/"+url.PathEscape(name)+"/explain")
}

// Backends lists the backends with their servers.
func (c *Client) Backends(ctx context.Context) (*api.BackendList, error) {
	return get[api.BackendList](ctx, c, "/v1/backends")
}

// Servers lists the servers of all backends.
func (c *Client) Servers(ctx context.Context) (*api.ServerList, error) {
	return get[api.ServerList](ctx, c, "/v1/servers")
}

// SetServer changes what is wanted of a server and returns it as it is then.
func (c *Client) SetServer(ctx context.Context, backend, server string, req api.ServerRequest) (*api.ServerStatus, error) {
	path := "/v1/servers/" + url.PathEscape(backend) + "/" + url.PathEscape(server)
	return send[api.ServerStatus](ctx, c, http.MethodPost, path, req)
}

// Certificates lists the certificate store.
func (c *Client) Certificates(ctx context.Context) (*api.CertificateList, error) {
	return get[api.CertificateList](ctx, c, "/v1/certificates")
}

// Certificate returns one certificate with its chains.
func (c *Client) Certificate(ctx context.Context, name string) (*api.CertificateDocument, error) {
	return get[api.CertificateDocument](ctx, c, "/v1/certificates/"+url.PathEscape(name))
}

// ImportCertificate stores a certificate under a name, or replaces what is stored there.
func (c *Client) ImportCertificate(ctx context.Context, name string, req api.CertificateRequest) (*api.CertificateImported, error) {
	return send[api.CertificateImported](ctx, c, http.MethodPut, "/v1/certificates/"+url.PathEscape(name), req)
}

// RemoveCertificate removes a certificate, or with an algorithm that chain of it alone.
func (c *Client) RemoveCertificate(ctx context.Context, name, algorithm string) (*api.CertificateRemoved, error) {
	path := "/v1/certificates/" + url.PathEscape(name)
	if algorithm != "" {
		path += "?algorithm=" + url.QueryEscape(algorithm)
	}
	return send[api.CertificateRemoved](ctx, c, http.MethodDelete, path, nil)
}

// Lists lists the address lists.
func (c *Client) Lists(ctx context.Context) (*api.AddressLists, error) {
	return get[api.AddressLists](ctx, c, "/v1/lists")
}

// SetList changes a list at run time and returns it as it is then.
func (c *Client) SetList(ctx context.Context, name string, req api.ListRequest) (*api.AddressList, error) {
	return send[api.AddressList](ctx, c, http.MethodPost, "/v1/lists/"+url.PathEscape(name), req)
}

// MoveVIP moves a virtual address, and returns when the other node answers for it.
func (c *Client) MoveVIP(ctx context.Context, name string, req api.MoveRequest) (*api.Moved, error) {
	return send[api.Moved](ctx, c, http.MethodPost, "/v1/vips/"+url.PathEscape(name)+"/move", req)
}

// SetNode changes what is wanted of a node and returns it as it is then.
func (c *Client) SetNode(ctx context.Context, node string, req api.NodeRequest) (*api.NodeDocument, error) {
	return send[api.NodeDocument](ctx, c, http.MethodPost, "/v1/nodes/"+url.PathEscape(node), req)
}

// Nodes lists the members.
func (c *Client) Nodes(ctx context.Context) (*api.NodeList, error) {
	return get[api.NodeList](ctx, c, "/v1/nodes")
}

// UpgradeNode has another process follow the node's agent, and returns once that is ready; the node's report says how it went.
func (c *Client) UpgradeNode(ctx context.Context, name string, req api.UpgradeRequest) (*api.Successor, error) {
	return send[api.Successor](ctx, c, http.MethodPost, "/v1/nodes/"+url.PathEscape(name)+"/upgrade", req)
}

// RemoveNode takes a node out of the cluster.
func (c *Client) RemoveNode(ctx context.Context, name string) (*api.Removed, error) {
	return send[api.Removed](ctx, c, http.MethodDelete, "/v1/nodes/"+url.PathEscape(name), nil)
}

// NewToken makes a secret with which hosts may join.
func (c *Client) NewToken(ctx context.Context, req api.TokenRequest) (*api.Token, error) {
	return send[api.Token](ctx, c, http.MethodPost, "/v1/tokens", req)
}

// Plan asks what a text would change.
func (c *Client) Plan(ctx context.Context, req api.PlanRequest) (*api.Plan, error) {
	return send[api.Plan](ctx, c, http.MethodPost, "/v1/plan", req)
}

// Apply sends a configuration and calls event for each line of the answer as it arrives: the commit, then every node, then the
// count. It returns when the node has said all.
func (c *Client) Apply(ctx context.Context, req api.ApplyRequest, event func(api.ApplyEvent)) error {
	resp, err := c.do(ctx, http.MethodPut, "/v1/config", req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(bufio.NewReader(io.LimitReader(resp.Body, maxAnswer)))
	for {
		var e api.ApplyEvent
		switch err := dec.Decode(&e); {
		case err != nil:
			return &Unreachable{Where: c.where, Err: fmt.Errorf("the answer broke off: %w", err)}
		case e.Done != nil:
			event(e)
			return nil
		}
		event(e)
	}
}

func get[T any](ctx context.Context, c *Client, path string) (*T, error) {
	return send[T](ctx, c, http.MethodGet, path, nil)
}

// send is one request and its answer as a document.
func send[T any](ctx context.Context, c *Client, method, path string, body any) (*T, error) {
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var doc T
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&doc); err != nil {
		return nil, &Unreachable{Where: c.where, Err: fmt.Errorf("read the answer to %s %s: %w", method, path, err)}
	}
	return &doc, nil
}

// do sends a request and returns the response of a success, its body still to be read.
func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://skein"+path, r)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // the URL in it is ours and would only confuse
		}
		return nil, &Unreachable{Where: c.where, Err: err}
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	var e api.Error
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&e); err != nil || e.Message == "" {
		return nil, &Unreachable{Where: c.where, Err: fmt.Errorf("%s %s: unexpected answer %s", method, path, resp.Status)}
	}
	return nil, &e
}
