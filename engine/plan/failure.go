package plan

// Failure is why a connection, a request or a session did not get what it came for. Each request and each session ends with exactly
// one, None included.
type Failure uint8

const (
	None             Failure = iota // it got what it came for
	ConnectRefused                  // the server's host said no
	ConnectTimeout                  // nobody answered in time
	ConnectError                    // no route, no port left, ...
	ServerClosed                    // the server ended the connection before its response was complete
	ServerMalformed                 // the response could not be parsed
	ResponseTimeout                 // no response head in time
	ServerTimeout                   // no progress of a body or stream on the server's side
	ClientClosed                    // the client went away in the middle
	ClientMalformed                 // the request could not be parsed
	HeadersTimeout                  // no complete request head in time
	ClientTimeout                   // no progress of a body or stream on the client's side
	NoServer                        // no server of the backend may take it
	QueueTimeout                    // every server was at max_connections for too long
	QueueFull                       // and there was no room to wait
	MarkedDown                      // the session was ended because its server went down (on_down = "close")
	OutOfDescriptors                // accept or connect found no descriptor left
	OverLimit                       // the backend has max_requests under way
	Stopped                         // this node ended before the exchange did
	Internal                        // the balancer could not go on: no memory for the kernel's part of a connection
	SlowRequest                     // a body that arrived below min_rate
	SlowResponse                    // a client that took what it asked for below min_rate
	Denied                          // a connection from an address that may not connect; nothing of it was read
	HandshakeFailed                 // TLS: nothing in common with the client, or it spoke no TLS
	HandshakeTimeout                // TLS: not over in time
	HandshakeClosed                 // TLS: the client went away in the middle
	HandshakeRefused                // TLS: too many at once
	NoCertificate                   // TLS: none for the name that the client asked for
	ClientAlert                     // TLS: the client said no, to the certificate for example
	RateLimit                       // more requests than a limit allows, or more connections of TCP
	ConnectionLimit                 // more connections at once than a limit allows its client
	BodyTooLarge                    // a request's body beyond max_body

	NumFailures // the length of an array that counts by Failure
)

// failures has for each Failure its name, which metrics and logs show, and who is to blame for it in the first letter of HAProxy's
// termination codes: C and c the client, which went away or was too slow; S and s the server; P the proxy, which refused; R a resource
// that was used up; D a server that was found down; K whoever stopped this node; I an internal error.
var failures = [NumFailures]struct {
	name string
	by   byte
}{
	None:             {"none", '-'},
	ConnectRefused:   {"connect_refused", 'S'},
	ConnectTimeout:   {"connect_timeout", 's'},
	ConnectError:     {"connect_error", 'S'},
	ServerClosed:     {"server_closed", 'S'},
	ServerMalformed:  {"server_malformed", 'P'},
	ResponseTimeout:  {"response_timeout", 's'},
	ServerTimeout:    {"server_timeout", 's'},
	ClientClosed:     {"client_closed", 'C'},
	ClientMalformed:  {"client_malformed", 'P'},
	HeadersTimeout:   {"headers_timeout", 'c'},
	ClientTimeout:    {"client_timeout", 'c'},
	NoServer:         {"no_server", 'S'},
	QueueTimeout:     {"queue_timeout", 's'},
	QueueFull:        {"queue_full", 'S'},
	MarkedDown:       {"marked_down", 'D'},
	OutOfDescriptors: {"out_of_descriptors", 'R'},
	OverLimit:        {"over_limit", 'P'},
	Stopped:          {"stopped", 'K'},
	Internal:         {"internal", 'I'},
	Denied:           {"denied", 'P'},
	SlowRequest:      {"slow_request", 'c'},
	SlowResponse:     {"slow_response", 'c'},
	HandshakeFailed:  {"handshake_failed", 'P'},
	HandshakeTimeout: {"handshake_timeout", 'c'},
	HandshakeClosed:  {"handshake_closed", 'C'},
	HandshakeRefused: {"handshake_refused", 'R'},
	NoCertificate:    {"no_certificate", 'P'},
	ClientAlert:      {"client_alert", 'C'},
	RateLimit:        {"rate_limit", 'P'},
	ConnectionLimit:  {"connection_limit", 'P'},
	BodyTooLarge:     {"body_too_large", 'P'},
}

// Connecting says that no connection to the server came about, so that nothing of a request was sent.
func (f Failure) Connecting() bool { return ConnectRefused <= f && f <= ConnectError }

func (f Failure) String() string {
	if f < NumFailures {
		return failures[f].name
	}
	return "unknown"
}

// Phase is what an exchange was doing when it ended, as the second letter of HAProxy's termination codes.
type Phase byte

const (
	PhaseRequest Phase = 'R' // waiting for the request to be complete and correct
	PhaseQueue   Phase = 'Q' // waiting for a place on a server
	PhaseConnect Phase = 'C' // making a connection to a server
	PhaseHeaders Phase = 'H' // waiting for the response's head
	PhaseData    Phase = 'D' // passing on data
	PhaseLast    Phase = 'L' // passing on the last data, which the server had sent already
)

// Termination is HAProxy's code for the end of an exchange: who is to blame, and in which phase. local says that the response was
// not a server's.
func Termination(f Failure, p Phase, local bool) [2]byte {
	switch {
	case f == None && local:
		return [2]byte{'L', 'R'}
	case f == None:
		return [2]byte{'-', '-'}
	case f < NumFailures:
		return [2]byte{failures[f].by, byte(p)}
	}
	return [2]byte{'I', byte(p)}
}
