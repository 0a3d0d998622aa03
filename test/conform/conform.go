// Package conform is a battery of HTTP/1.1 cases: bytes sent to a running proxy on a raw socket, and what must come of them.
//
// In front of a proxy stands a client that sends exactly what a case says; behind it a strict origin that takes only canonical
// HTTP/1.1 and records all of it. Three invariants hold in every case, whatever it expects: what reaches the origin is
// canonical; the origin never sees a request that was not sent; two canaries sent afterwards get their own answers. It knows
// proxies by their address alone, so that the same battery judges skein and its peers. It is no measurement of speed.
package conform

import (
	"fmt"
	"strings"
)

// Level is how much a case binds.
type Level string

const (
	Must   Level = "MUST"   // a requirement of the RFC, or safety from smuggling
	Legal  Level = "legal"  // ordinary traffic, which must work
	Should Level = "SHOULD" // advice of the RFC, or hardening that it leaves open
)

// Case is one conversation. In its texts "|" stands for CR LF.
type Case struct {
	Class   string // the group it belongs to; filled in by Cases
	Level   Level
	Section string // of RFC 9112, unless it names another RFC
	Name    string // what must hold, as a sentence

	// What the client does.
	Send string // bytes for one connection
	Then string // sent when an interim response arrives, or none does for thenAfter; behind 101, in the new protocol
	Slow bool   // Send goes out byte by byte
	Ends bool   // it closes its direction behind Send

	// What the origin does. Without Reply it answers 200 with an echo of the request (see echo).
	Reply  string
	Late   string // sent behind Reply when the client has its answer
	Closes bool   // it closes the connection behind Reply
	Early  bool   // it answers when the head is there, and does not wait for the body
	begun  bool   // a request that is refused within its body may have begun to reach it

	// What must come of it.
	//
	// Want is what the client gets: the statuses of its final responses in their order, where "4xx" is a class, "refused" any 4xx or
	// 5xx and "cut" a connection that ended, perhaps within a response. A last "close" means that the connection ends. " or " stands
	// between alternatives. As many requests as it has answers that are not errors reach the origin, and no other does, not even one
	// that is cut off; with a Reply it is the one request that was sent.
	Want  string
	Own   bool   // the proxy answers by itself: nothing reaches the origin
	Quiet bool   // there is no interim response
	Sees  string // what the requests have at the origin, as message.lacks reads it, with "||" between two requests
	Gets  string // what the client's first final response has, or with "1xx" in front the first interim one
}

// Cases returns the battery.
func Cases() []Case {
	var all []Case
	for _, group := range []struct {
		class string
		begun bool
		cases []Case
	}{
		{"request line", false, requestLine},
		{"Host and absolute-form", false, hosts},
		{"header syntax", false, headers},
		{"Content-Length", false, lengths},
		{"Transfer-Encoding", false, codings},
		{"chunks", true, chunks},
		{"trailers", true, trailers},
		{"hop-by-hop", false, hops},
		{"Via and Max-Forwards", false, forwards},
		{"Expect", true, expects},
		{"connections and pipelining", false, pipelines},
		{"upgrade", false, upgrades},
		{"response framing", true, responseFraming},
		{"response heads", true, responseHeads},
	} {
		for _, c := range group.cases {
			c.Class, c.begun = group.class, group.begun
			all = append(all, c)
		}
	}
	return all
}

// Result is what came of a case.
type Result struct {
	Class   string   `json:"class"`
	Level   Level    `json:"level"`
	Section string   `json:"section"`
	Name    string   `json:"name"`
	Got     string   `json:"got"`             // as Want has it
	Wrong   []string `json:"wrong,omitempty"` // empty: passed
}

// Passed reports whether everything was as the case wants it.
func (r Result) Passed() bool { return len(r.Wrong) == 0 }

func (r *Result) blame(format string, args ...any) {
	r.Wrong = append(r.Wrong, fmt.Sprintf(format, args...))
}

// Score is how many cases of a level passed.
type Score struct{ Passed, Of int }

func (s Score) String() string { return fmt.Sprintf("%d/%d", s.Passed, s.Of) }

// Tally counts the results that keep says.
func Tally(results []Result, keep func(Result) bool) Score {
	var s Score
	for _, r := range results {
		if !keep(r) {
			continue
		}
		s.Of++
		if r.Passed() {
			s.Passed++
		}
	}
	return s
}

// crlf turns the tables' "|" into line ends.
func crlf(s string) string { return strings.ReplaceAll(s, "|", "\r\n") }
