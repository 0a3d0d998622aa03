package sim

import (
	"fmt"
	"sync"

	"github.com/anishathalye/porcupine"
)

// history is what clients asked of the configuration and what they were told, in the order of real time. A write names the revision that
// it is based on; its refusal says which one stands, and so is a read. Plain reads are not part of it: any node answers them from
// what it has, without a quorum, and says as of when.
type history struct {
	mu sync.Mutex
	// mu guards the following.
	clock int64 // counts calls and returns
	ops   []porcupine.Operation
}

// write is a change of the configuration. Told is what its client heard of it.
type write struct{ Base uint64 }

type told struct {
	Kind     toldKind
	Revision uint64 // committed: the new one; stale: the one that stands
}

type toldKind uint8

const (
	unknown toldKind = iota // it may or may not have happened, then or at any later time
	committed
	stale
	refused // it did not happen, for a reason that says nothing of the revision
)

// call notes a request and returns what its end has to be told.
func (h *history) call(w write) (end func(told)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	op := porcupine.Operation{ClientId: len(h.ops), Input: w, Call: h.clock, Output: told{}, Return: 1 << 62}
	k := len(h.ops)
	h.ops = append(h.ops, op)
	return func(t told) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.clock++
		h.ops[k].Output = t
		if t.Kind != unknown {
			h.ops[k].Return = h.clock
		}
	}
}

// model is the configuration as clients may think of it: a number that a write raises by one if it is the one that it is based on.
var model = porcupine.NondeterministicModel{
	Init: func() []any { return []any{uint64(0)} },
	Step: func(state, input, output any) []any {
		at, w, t := state.(uint64), input.(write), output.(told)
		switch {
		case t.Kind == committed && at == w.Base && t.Revision == at+1:
			return []any{at + 1}
		case t.Kind == stale && at != w.Base && t.Revision == at, t.Kind == refused:
			return []any{at}
		case t.Kind == unknown && at == w.Base:
			return []any{at, at + 1}
		case t.Kind == unknown:
			return []any{at}
		}
		return nil
	},
	DescribeOperation: func(input, output any) string {
		return fmt.Sprintf("write on %d: %v", input.(write).Base, output.(told))
	},
}

// check reports whether some order of what happened explains everything that every client was told.
func (h *history) check() (ops int, linearizable bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ops), porcupine.CheckOperations(model.ToModel(), h.ops)
}
