package vip

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Agent and guard talk over a seqpacket socket: one JSON object per packet, one field set in each. The socket has an abstract
// name, and abstract names belong to a network namespace: binding it is also the lock that keeps the guard the only one there.
//
// A guard outlives upgrades of its agent, so an older one serves a newer one. The guard does what it knows of what it is told, and names
// the rest, which the agent makes known; an agent passes over what it does not know of a guard's report. So whoever adds a field
// gives it omitempty: an older guard is complained of only where it matters. What must not be passed over raises Protocol.
const (
	controlName     = "skein/guard"
	controlProtocol = Protocol
	controlMax      = 128 << 10 // bytes in a packet
)

// Protocol is the version of what agent and guard say to one another. A guard that serves an agent cannot serve a successor with another.
const Protocol = 1

// toGuard is what an agent says. The first packet is Hello and carries the shared memory's descriptor.
type toGuard struct {
	Hello *hello `json:"hello,omitempty"`
	Setup *Setup `json:"setup,omitempty"`
	Fit   *fit   `json:"fit,omitempty"`
	Yield *yield `json:"yield,omitempty"`
	Quit  bool   `json:"quit,omitempty"` // release everything and end

	Drained map[string]Epoch `json:"drained,omitempty"` // parked VIPs of which nothing is left
}

type hello struct {
	Protocol int `json:"protocol"`
}

type fit struct {
	Fit    bool   `json:"fit"`
	Reason string `json:"reason,omitempty"`
}

// yield announces that another agent may come and take over at once. From then on the node counts as fit as it was, until the new agent
// has said how it is or Grace has passed. A zero Grace takes the announcement back.
type yield struct {
	Grace time.Duration `json:"grace"`
}

// toAgent is what a guard says.
type toAgent struct {
	Welcome *welcome    `json:"welcome,omitempty"`
	Refused *refused    `json:"refused,omitempty"`
	Problem string      `json:"problem,omitempty"` // the last Setup was not taken
	Taken   bool        `json:"taken,omitempty"`   // the last Setup was
	State   *wireStatus `json:"state,omitempty"`

	Unknown string `json:"unknown,omitempty"` // the first thing in the last Setup, or another packet, that this guard knows nothing of
}

type welcome struct {
	Protocol int `json:"protocol"`
	PID      int `json:"pid"`
}

type refused struct {
	Protocol int    `json:"protocol"`
	Why      string `json:"why"`
}

// wireStatus is State with ages instead of wall-clock times: the guard has no wall clock.
type wireStatus struct {
	State
	Ages         map[string]time.Duration `json:"ages,omitempty"`          // by VIP: since when it is held
	ConflictAges []time.Duration          `json:"conflict_ages,omitempty"` // as Conflicts
}

// state turns ages into times.
func (w *wireStatus) state(now time.Time) State {
	s := w.State
	for name, h := range s.Held {
		h.Since = now.Add(-w.Ages[name])
		s.Held[name] = h
	}
	for i := range s.Conflicts {
		if i < len(w.ConflictAges) {
			s.Conflicts[i].At = now.Add(-w.ConflictAges[i])
		}
	}
	return s
}

// decodeControl reads a packet. What this version does not know is passed over; unknown is the first of it.
func decodeControl[T any](b []byte) (m T, unknown string, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	strict := d.Decode(&m)
	if strict == nil && !d.More() {
		return m, "", nil
	}
	m = *new(T)
	if err := json.Unmarshal(b, &m); err != nil {
		return *new(T), "", err
	}
	return m, strings.Trim(strings.TrimPrefix(strict.Error(), "json: unknown field "), `"`), nil
}

func encodeControl(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err == nil && len(b) > controlMax {
		err = fmt.Errorf("control message of %d bytes, want at most %d", len(b), controlMax)
	}
	return b, err
}
