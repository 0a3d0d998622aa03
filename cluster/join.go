package cluster

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/state/cert"
)

// Errors of founding and joining.
var (
	ErrJoinRefused = errors.New("the cluster refused")
	ErrMember      = errors.New("this host is already a member of a cluster")
	ErrPin         = errors.New("what answers is not the cluster that the token is for")
)

// joinTime bounds one attempt at one address: a handshake, an election in between, two commits.
const joinTime = 15 * time.Second

// Newcomer is a host that founds or joins a cluster.
type Newcomer struct {
	Dir       string
	Name      string
	Advertise netip.AddrPort
	Role      state.Role
	Level     int              // the newest level of commands that it applies; 0: state.Level
	Network   Network          // nil: Host
	Now       func() time.Time // nil: time.Now
}

func (n *Newcomer) prepare() error {
	if n.Network == nil {
		n.Network = Host{}
	}
	if n.Now == nil {
		n.Now = time.Now
	}
	if n.Level == 0 {
		n.Level = state.Level
	}
	if err := checkName(n.Name); err != nil {
		return err
	}
	if !n.Advertise.IsValid() || n.Advertise.Port() == 0 || n.Advertise.Addr().IsUnspecified() {
		return fmt.Errorf("advertise %v: the address and port at which the other nodes reach this one are needed", n.Advertise)
	}
	if id, err := loadIdentity(n.Dir); err == nil {
		return fmt.Errorf("%w: %s, as %s (in %s)", ErrMember, id.cluster, id.name, n.Dir)
	} else if !errors.Is(err, ErrNoCluster) {
		return fmt.Errorf("open %s: %w", n.Dir, err)
	}
	if _, err := os.Stat(filepath.Join(n.Dir, fileStore)); err == nil {
		return fmt.Errorf("%s holds the log of a former membership: move %s away first", n.Dir, n.Dir)
	}
	return os.MkdirAll(n.Dir, 0o700)
}

// Found makes a new cluster with this host as its first member: identity, authority and keys are written to n.Dir. The cluster comes
// to life when the host runs: the first command of its log is the one that Found wrote down. It returns the cluster's ID.
func Found(n Newcomer) (string, error) {
	if err := n.prepare(); err != nil {
		return "", err
	}
	now := n.Now()
	id := randomHex(8)
	ca, err := newCA(id, now)
	if err != nil {
		return "", fmt.Errorf("make the cluster's authority: %w", err)
	}
	key, err := ensureKey(n.Dir)
	if err != nil {
		return "", err
	}
	der, err := signNode(ca, key.Public(), id, n.Name, now)
	if err != nil {
		return "", fmt.Errorf("make the node's certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return "", err
	}
	cmd := state.Encode(state.Found{
		ClusterID: id,
		CA:        ca,
		Gossip:    randomKey(),
		Heartbeat: randomKey(),
		Node:      state.Node{Name: n.Name, Advertise: n.Advertise, Role: n.Role, Fingerprint: fingerprint(leaf.RawSubjectPublicKeyInfo)},
		At:        now,
		Level:     levelField(n.Level),
	})
	if err := writeFile(filepath.Join(n.Dir, fileFound), cmd); err != nil {
		return "", err
	}
	if err := saveSealKey(n.Dir, cert.NewSealKey()); err != nil {
		return "", err
	}
	return id, saveIdentity(n.Dir, ca.CertPEM, certPEM(der))
}

// levelField is a level as commands say it: they say nothing of the first, which older versions read.
func levelField(level int) int {
	if level < 2 {
		return 0
	}
	return level
}

func readFound(dir string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, fileFound)) }

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}

func randomKey() []byte {
	b := make([]byte, 32)
	rand.Read(b)
	return b
}

// found proposes the first command of a new cluster, as often as it takes.
func (c *Cluster) found(ctx context.Context) {
	cmd, err := readFound(c.dir)
	if err != nil {
		return // long since in the log, or never this node's business
	}
	for ctx.Err() == nil {
		if _, err := c.leadership.Wait(ctx, func(l Leadership) bool { return l.Self && l.Barrier }); err != nil {
			return
		}
		if !c.view().Founded() {
			if _, _, err := c.Propose(ctx, cmd); err != nil {
				c.log.Warn("found the cluster", "err", err)
				continue
			}
			c.log.Info("cluster founded", "cluster", c.ID())
		}
		if err := os.Remove(filepath.Join(c.dir, fileFound)); err != nil {
			c.log.Warn("remove what the cluster was founded with; it holds the authority's key", "err", err)
		}
		return
	}
}

// joinRequest is what a newcomer says. The secret is only ever sent to who owns the CA that the token pins.
type joinRequest struct {
	Token     string
	Secret    []byte
	Name      string
	Advertise netip.AddrPort
	Role      state.Role
	Request   []byte // certificate signing request, DER: proves that the newcomer has its key
	Level     int    `json:",omitempty"` // the newest level of commands that it applies; 0: it knows of none
}

// joinAnswer makes a newcomer a member. All else comes through the log.
type joinAnswer struct {
	CA   []byte // PEM
	Cert []byte // PEM
	Seal []byte `json:",omitempty"` // see fileSeal; over the connection that the token's pin has proved, and nowhere else
}

// Join makes this host a member of the cluster that the token is for. It asks addr (if valid) and then the addresses in the token
// until one answers, ctx ends, or the cluster refuses. It may be called again: with the same Dir it is the same newcomer. The host
// is a member when it returns nil, and takes part when it runs. It returns the cluster's ID.
func Join(ctx context.Context, n Newcomer, addr netip.AddrPort, text string) (string, error) {
	t, err := parseToken(text)
	if err != nil {
		return "", err
	}
	if err := n.prepare(); err != nil {
		return "", err
	}
	key, err := ensureKey(n.Dir)
	if err != nil {
		return "", err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: n.Name}}, key)
	if err != nil {
		return "", err
	}
	ask, err := json.Marshal(joinRequest{Token: t.id, Secret: t.secret, Name: n.Name, Advertise: n.Advertise, Role: n.Role, Request: csr, Level: n.Level})
	if err != nil {
		return "", err
	}
	addrs := t.addrs
	if addr.IsValid() {
		addrs = append([]netip.AddrPort{addr}, addrs...)
	}
	if len(addrs) == 0 {
		return "", errors.New("the token names no address: say at which address a member of the cluster answers")
	}
	for {
		var all error
		foreign := 0
		for _, a := range addrs {
			b, err := joinAt(ctx, n, t, a, ask)
			if err == nil {
				return acceptJoin(n, t, key, b)
			}
			err = fmt.Errorf("join at %v: %w", a, err)
			if errors.Is(err, ErrJoinRefused) {
				return "", err
			}
			if errors.Is(err, ErrPin) {
				foreign++
			}
			all = errors.Join(all, err)
		}
		if foreign == len(addrs) {
			return "", all // trying again makes it no other cluster
		}
		retry := time.NewTimer(time.Second)
		select {
		case <-retry.C:
		case <-ctx.Done():
			retry.Stop()
			return "", all
		}
	}
}

// joinAt asks one address.
func joinAt(ctx context.Context, n Newcomer, t token, addr netip.AddrPort, ask []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	raw, err := n.Network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	c := tls.Client(raw, &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{ALPNJoin},
		InsecureSkipVerify: true, // the pin decides
		VerifyConnection: func(cs tls.ConnectionState) error {
			chain := cs.PeerCertificates
			if len(chain) < 2 || !bytes.Equal(caPin(chain[1]), t.pin) {
				return ErrPin
			}
			id, _, err := certName(chain[0])
			if err != nil {
				return fmt.Errorf("%w: %w", ErrPin, err)
			}
			_, err = verify(chain[1], id, chain, n.Now(), nil)
			return err
		},
	})
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if _, err := c.Write(appendFrame(nil, frame{kind: frameJoin, body: ask})); err != nil {
		return nil, err
	}
	f, err := readFrame(c, maxJoinFrame)
	if err != nil {
		return nil, fmt.Errorf("no answer: %w", err)
	}
	switch f.kind {
	case frameOK:
		return f.body, nil
	case frameRefused:
		return nil, decodeRefusal(f.body)
	}
	return nil, errFrame
}

// acceptJoin checks the answer and writes the identity.
func acceptJoin(n Newcomer, t token, key *ecdsa.PrivateKey, b []byte) (string, error) {
	var a joinAnswer
	if err := json.Unmarshal(b, &a); err != nil {
		return "", fmt.Errorf("join: the answer cannot be read: %w", err)
	}
	id, err := newIdentity(a.CA, a.Cert, key)
	if err != nil {
		return "", fmt.Errorf("join: the answer is not for this host: %w", err)
	}
	if !bytes.Equal(caPin(id.ca), t.pin) || id.name != n.Name {
		return "", fmt.Errorf("join: %w", ErrPin)
	}
	if err := saveSealKey(n.Dir, a.Seal); err != nil {
		return "", err
	}
	return id.cluster, saveIdentity(n.Dir, a.CA, a.Cert)
}

// serveJoin answers a newcomer. Any member does; the leader decides.
func (c *Cluster) serveJoin(conn *tls.Conn, _ peer) {
	defer conn.Close()
	select {
	case c.joins <- struct{}{}:
		defer func() { <-c.joins }()
	default:
		return
	}
	conn.SetDeadline(time.Now().Add(joinTime))
	f, err := readFrame(conn, maxJoinFrame)
	if err != nil || f.kind != frameJoin {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), joinTime-time.Second)
	defer cancel()
	b, err := c.ask(ctx, frameJoin, f.body)
	reply := frame{kind: frameOK, id: f.id, body: b}
	if err != nil {
		reply = frame{kind: frameRefused, id: f.id, body: encodeRefusal(err)}
	}
	conn.Write(appendFrame(nil, reply))
}

// admit decides on the leader whether a newcomer becomes a member, and makes it one. A newcomer that asks again with the same key
// gets the same answer and uses the token up only once.
func (c *Cluster) admit(ctx context.Context, body []byte) ([]byte, error) {
	if l := c.leadership.Get(); !l.Self || !l.Barrier {
		return nil, ErrNoLeader
	}
	var r joinRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("%w: the request cannot be read", ErrJoinRefused)
	}
	key, err := requestKey(r.Request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJoinRefused, err)
	}
	view := c.view()
	n := state.Node{Name: r.Name, Advertise: r.Advertise, Role: r.Role, Fingerprint: key.fingerprint}
	known, err := checkNewcomer(view, n)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJoinRefused, err)
	}
	put := state.PutNode{Node: n}
	if view.Level() > 1 {
		put.Level = max(1, r.Level)
	}
	if !known && put.Level < view.Level() && view.Level() > 1 {
		return nil, fmt.Errorf("%w: the cluster is at level %d, and this host's version applies commands up to level %d: install the version that the cluster runs",
			ErrJoinRefused, view.Level(), put.Level)
	}
	sum := sha256.Sum256(r.Secret)
	use := state.UseToken{ID: r.Token, SecretHash: sum[:], Role: r.Role, By: n.Fingerprint}
	if !known {
		if err := c.command(ctx, use); err != nil {
			if errors.Is(err, state.ErrBadToken) {
				return nil, fmt.Errorf("%w: %w", ErrJoinRefused, err) // it says how to get another
			}
			return nil, err
		}
	}
	der, err := signNode(view.CA, key.public, view.Cluster.ID, n.Name, c.opt.Now())
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", n.Name, err)
	}
	if err := c.command(ctx, put); err != nil {
		var no *state.Refusal
		if errors.As(err, &no) {
			return nil, fmt.Errorf("%w: %w", ErrJoinRefused, err)
		}
		return nil, err
	}
	c.log.Info("node joined", "peer", n.Name, "addr", n.Advertise, "role", n.Role)
	return json.Marshal(joinAnswer{CA: view.CA.CertPEM, Cert: certPEM(der), Seal: c.seal})
}

// command applies a command on the leader; the error is the machine's refusal or that of the log.
func (c *Cluster) command(ctx context.Context, cmd state.Command) error {
	a, err := c.apply(ctx, state.Encode(cmd))
	if err != nil {
		return err
	}
	r, err := state.DecodeResult(a.result)
	if err != nil {
		return err
	}
	return r.Err()
}

// checkNewcomer says whether n may become a member. known: it already is, with the same key.
func checkNewcomer(v *state.View, n state.Node) (known bool, err error) {
	if err := checkName(n.Name); err != nil {
		return false, err
	}
	if n.Role != state.Balancer && n.Role != state.Witness {
		return false, fmt.Errorf("role %q: balancer and witness are known", n.Role)
	}
	if !n.Advertise.IsValid() {
		return false, errors.New("no address to reach the node at")
	}
	if v.Refused(n.Fingerprint) {
		return false, errors.New("this host's key belongs to a node that was removed: empty the cluster directory below its data_dir and join again")
	}
	for _, m := range v.Nodes {
		switch {
		case m.Name == n.Name && m.Fingerprint == n.Fingerprint:
			known = true
		case m.Name == n.Name:
			return false, fmt.Errorf("a node named %s exists: choose another name, or remove that one with `skein node remove %s`", n.Name, n.Name)
		case m.Advertise == n.Advertise:
			return false, fmt.Errorf("%v is the address of node %s: remove that one with `skein node remove %s`, or advertise another", n.Advertise, m.Name, m.Name)
		}
	}
	return known, nil
}

type publicKey struct {
	public      *ecdsa.PublicKey
	fingerprint string
}

// requestKey checks a certificate signing request and returns its key.
func requestKey(der []byte) (publicKey, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return publicKey{}, errors.New("the certificate signing request cannot be read")
	}
	if err := csr.CheckSignature(); err != nil {
		return publicKey{}, errors.New("the certificate signing request is not signed with its own key")
	}
	pub, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return publicKey{}, errors.New("the key is not ECDSA P-256")
	}
	return publicKey{pub, fingerprint(csr.RawSubjectPublicKeyInfo)}, nil
}

// CreateToken makes a token with which uses hosts may join in that role until ttl has passed. The id is what may be logged of it.
func (c *Cluster) CreateToken(ctx context.Context, role state.Role, ttl time.Duration, uses int) (id, text string, err error) {
	addrs := []netip.AddrPort{c.opt.Advertise}
	for _, n := range c.view().Nodes {
		if n.Name != c.name {
			addrs = append(addrs, n.Advertise)
		}
	}
	t := newToken(c.identity.Load().ca, addrs)
	if err := c.propose(ctx, state.PutToken{ID: t.id, SecretHash: t.hash(), Role: role, TTL: ttl, Uses: uses}); err != nil {
		return "", "", fmt.Errorf("make a token: %w", err)
	}
	return t.id, t.String(), nil
}

// RemoveNode takes a node out of the cluster for good: its certificate is refused from now on and the shared keys are replaced.
func (c *Cluster) RemoveNode(ctx context.Context, name string) error {
	if err := c.propose(ctx, state.RemoveNode{Name: name, Gossip: randomKey(), Heartbeat: randomKey()}); err != nil {
		return fmt.Errorf("remove node %s: %w", name, err)
	}
	return nil
}

func (c *Cluster) propose(ctx context.Context, cmd state.Command) error {
	b, err := c.ask(ctx, framePropose, state.Encode(cmd))
	if err != nil {
		return err
	}
	return resultOf(b)
}

// resultOf reads the answer to a proposal.
func resultOf(b []byte) error {
	if len(b) < 8 {
		return errFrame
	}
	r, err := state.DecodeResult(b[8:])
	if err != nil {
		return err
	}
	return r.Err()
}
