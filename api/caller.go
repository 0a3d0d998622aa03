package api

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os/user"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// plainListener hides from net/http that its connections are TLS: it would drop one whose protocol (ALPN) is not "http/1.1", and
// ours is the name by which the cluster's port tells its users apart.
type plainListener struct{ net.Listener }

func (l plainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return plainConn{c}, nil
}

type plainConn struct{ net.Conn }

// caller is who asks, as the kernel or the caller's certificate says; it is never taken from the request.
type caller struct{ conn net.Conn }

type callerKey struct{}

func withCaller(ctx context.Context, c net.Conn) context.Context {
	if p, ok := c.(plainConn); ok {
		c = p.Conn
	}
	return context.WithValue(ctx, callerKey{}, caller{conn: c})
}

// author names who made the request, for the record: "root@lb1" through the socket of lb1, "node lb2" through its certificate.
func (s *Server) author(r *http.Request) string {
	c, _ := r.Context().Value(callerKey{}).(caller)
	switch conn := c.conn.(type) {
	case *net.UnixConn:
		if name := peerUser(conn); name != "" {
			return name + "@" + s.opts.Self
		}
	case *tls.Conn:
		if certs := conn.ConnectionState().PeerCertificates; len(certs) > 0 && len(certs[0].URIs) > 0 {
			return "node " + path.Base(certs[0].URIs[0].Path)
		}
	}
	return s.opts.Self
}

// peerUser returns the name of the user at the other end of a unix socket, or "".
func peerUser(c *net.UnixConn) string {
	raw, err := c.SyscallConn()
	if err != nil {
		return ""
	}
	var cred *unix.Ucred
	if raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }) != nil || err != nil {
		return ""
	}
	uid := strconv.FormatUint(uint64(cred.Uid), 10)
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "uid " + uid
}
