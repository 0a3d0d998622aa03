package accesslog

import (
	"net/netip"
)

// MaxHeaders bounds the request header fields that lines show.
const MaxHeaders = 8

// Entry is what is said of one request or session. A loop uses one again and again; its slices are looked at during Append alone.
type Entry struct {
	Start    int64 // when the first byte was there, in nanoseconds since 1970
	Client   netip.AddrPort
	Peer     netip.Addr // the trusted proxy that spoke for the client; then the port is the proxy's
	TCP      bool
	Frontend string
	Backend  string // "": none
	Server   string // "": none

	// Of the request; without a Method there was none, or it was malformed.
	Method  []byte
	Target  []byte
	Host    []byte
	Minor   uint8              // of HTTP/1.x
	Headers [MaxHeaders][]byte // as many as the settings name; nil: there was none

	Status  int // 0: nothing was answered
	In, Out int64
	Retries int
	Cause   string
	Code    [2]byte // HAProxy's, for the cause

	// In nanoseconds; negative: it never came to that.
	Request, Queue, Connect, Response, Total int64

	// How many others there were, in the moment in which it ended.
	Connections, FrontendConnections, BackendActive, ServerActive int64
	Ahead                                                         int64 // in the queue when it was entered
}
