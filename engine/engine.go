// Package engine is the data plane: it accepts, routes, balances and forwards HTTP/1.1 and TCP on one event loop per core.
//
// It is told what to do and knows no cluster, no Raft, no disk and no health checks. DESIGN.md holds its core principles; the
// one rule: no lock, no blocking call, no allocation and no long loop on the request path.
package engine
