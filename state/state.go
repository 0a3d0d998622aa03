// Package state is the replicated state machine: what the cluster wants (configuration, admin state, placements, members, keys,
// sticky tables), as a function of a log of commands.
//
// It holds no Raft, no clock, no randomness and no I/O: package cluster feeds it, everybody else reads its View. It also holds
// the pure decisions that a leader makes about it (Placements, Voters). The one rule: the same commands at the same indexes
// make the same state, to the byte, on every node and in every version.
package state

import (
	"errors"
	"fmt"
	"io"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/internal/watch"
	"github.com/skeinlb/skein/state/sticky"
)

// Machine applies commands. New makes one. Apply, Snapshot and Restore are for one goroutine at a time (Raft's apply),
// everything else for any.
type Machine struct {
	// Immutable.
	parse  func(text []byte) (*config.Config, error)
	tables *sticky.Tables
	level  int // the newest that it applies

	views watch.Value[*View]
	view  *View // the newest; written by the applying goroutine alone
}

// New returns the machine before the first command.
func New() *Machine { return NewAt(Level) }

// NewAt returns one that knows no more than a version of that level, for simulations of older versions.
func NewAt(level int) *Machine {
	m := newMachine(func(text []byte) (*config.Config, error) {
		c, diags := config.Parse("cluster.hcl", text)
		if diags.HasErrors() {
			return nil, errors.New(diags.Error())
		}
		return c, nil
	})
	m.level = level
	return m
}

func newMachine(parse func([]byte) (*config.Config, error)) *Machine {
	m := &Machine{parse: parse, tables: sticky.New(), level: Level, view: &View{}}
	m.views.Set(m.view)
	return m
}

// Views publishes the state, never nil, after each command that changed it. Sticky batches change no View; ticks do only while
// there are tokens, whose age is seen in it.
func (m *Machine) Views() *watch.Value[*View] { return &m.views }

// Tables returns the sticky tables. Their Configure, Apply, Advance, Freeze and Adopt are the machine's to call.
func (m *Machine) Tables() *sticky.Tables { return m.tables }

// LogTime returns the present log time in milliseconds.
func (m *Machine) LogTime() uint64 { return m.tables.LogTime() }

// Apply carries out one command and returns its Result as bytes, a []byte for DecodeResult: a command that is corrupt or out of place
// changes nothing and says so. One that only a newer version can carry out is an error, an ErrTooNew, and no further command may
// be applied.
func (m *Machine) Apply(index uint64, cmd []byte) any {
	r, err := m.apply(index, cmd)
	if err != nil {
		return err
	}
	r.Index, r.Revision = index, m.view.Revision.Number
	return EncodeResult(r)
}

func (m *Machine) apply(index uint64, b []byte) (Result, error) {
	cmd, err := Decode(b)
	if err != nil {
		if r := (*Refusal)(nil); errors.As(err, &r) {
			return r.Result, nil
		}
		return Result{}, err
	}
	if n := needs(cmd); n > m.level {
		return Result{}, &TooNew{What: fmt.Sprintf("a command of kind %d", cmd.kind()), Level: n, Have: m.level}
	}
	if r, ok := cmd.(Raise); ok && r.To > m.level {
		return Result{}, &TooNew{What: "the log", Level: r.To, Version: r.Version, Have: m.level}
	}
	return m.carryOut(index, cmd), nil
}

func (m *Machine) carryOut(index uint64, cmd Command) Result {
	if _, founding := cmd.(Found); !founding && !m.view.Founded() {
		return refuse(NotFounded, "this cluster has not been founded")
	}
	switch c := cmd.(type) {
	case StickyLearn:
		if _, err := m.tables.Apply(c.Batch, m.LogTime()); err != nil {
			return refuse(Corrupt, "%v", err)
		}
		return Result{}
	case Tick:
		return m.tick(index, c)
	}

	next := *m.view
	next.Index = index
	var r Result
	switch c := cmd.(type) {
	case Found:
		r = next.found(c)
	case SetConfig:
		if r = next.setConfig(c); r.Code == OK {
			if err := m.tables.Configure(next.Scope.Tables); err != nil {
				return refuse(Invalid, "%v", err)
			}
			m.read(&next)
		}
	case Place:
		r = next.place(c)
	case Unplace:
		r = next.unplace(c)
	case SetServer:
		r = next.setServer(c)
	case PutNode:
		r = next.putNode(c)
	case RemoveNode:
		r = next.removeNode(c)
	case PutToken:
		r = next.putToken(c, m.LogTime())
	case UseToken:
		r = next.useToken(c, m.LogTime())
	case RotateKeys:
		r = next.rotateKeys(c)
	case Recover:
		r = next.recover(c)
	case PutCertificate:
		r = next.putCertificate(c)
	case RemoveCertificate:
		r = next.removeCertificate(c)
	case PutTicketKey:
		r = next.putTicketKey(c, m.LogTime())
	case SetList:
		r = next.setList(c)
	case Move:
		r = next.move(c)
	case SetNode:
		r = next.setNode(c)
	case Adopt:
		r = next.adopt(c)
	case Raise:
		r = next.raise(c)
	}
	if r.Code == OK {
		m.publish(&next)
	}
	return r
}

// maxTick bounds what one tick can do to log time; the leader's clock cannot have counted more between two of them.
const maxTick = 24 * 60 * 60 * 1000

func (m *Machine) tick(index uint64, c Tick) Result {
	if c.ElapsedMs > maxTick {
		return refuse(Invalid, "a tick of %d ms is longer than a day", c.ElapsedMs)
	}
	m.tables.Advance(m.LogTime() + c.ElapsedMs)
	if len(m.view.Tokens) > 0 {
		next := *m.view
		next.Index = index
		next.expireTokens(m.LogTime())
		m.publish(&next)
	}
	return Result{}
}

// read makes v.Config from v's text. Only what is shown and done locally depends on it, never the state.
func (m *Machine) read(v *View) {
	c, err := m.parse(v.Revision.Text)
	if err != nil {
		v.ConfigError = fmt.Errorf("read revision %d: %w", v.Revision.Number, err)
		return
	}
	v.Config, v.ConfigError = c, nil
}

func (m *Machine) publish(v *View) {
	v.LogTime = m.LogTime()
	m.view = v
	m.views.Set(v)
}

// Snapshot is the state at one moment, written out beside the commands that follow. It is an alias, so that a package that
// declares the same two methods needs no adapter.
type Snapshot = interface {
	Persist(w io.Writer) error
	Release()
}

// Snapshot takes the present state. It takes microseconds, whatever the tables hold.
func (m *Machine) Snapshot() (Snapshot, error) {
	return &snapshot{view: m.view, logTime: m.LogTime(), tables: m.tables.Freeze()}, nil
}

// Restore replaces the state by a snapshot's. When it fails, nothing has changed. The error is an ErrSnapshot, an ErrTooNew, or the
// reader's.
func (m *Machine) Restore(r io.Reader) error {
	v, logTime, tables, err := readSnapshot(r, m.tables, m.level)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	m.tables.Adopt(tables, logTime)
	if v.Revision.Number > 0 {
		v.Config = m.view.Config
		m.read(v)
	}
	m.publish(v)
	return nil
}
