package state

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/skeinlb/skein/state/sticky"
)

// A level counts the changes to the language of the log: a version applies all levels up to its own. The cluster has a level too, in
// its state: nothing of a higher one is proposed, so that no member meets what it does not know. The leader raises it once every member
// can follow, and nothing lowers it.
//
// Whoever adds a kind of command, or a field to one, gives it the next level in introduced or needs, unless no version with the
// present one was released yet.

// Level is the newest level that this version applies.
//
//	1  what versions apply that say nothing of levels
//	2  levels: Raise, Found.Level, PutNode.Level, snapshots of format 2
const Level = 2

// introduced is the level that brought each kind.
var introduced = map[kind]int{
	kindFound: 1, kindSetConfig: 1, kindPlace: 1, kindUnplace: 1, kindSetServer: 1, kindPutNode: 1, kindRemoveNode: 1, kindPutToken: 1,
	kindUseToken: 1, kindRotateKeys: 1, kindStickyLearn: 1, kindTick: 1, kindRecover: 1,
	kindPutCertificate: 1, kindRemoveCertificate: 1, kindPutTicketKey: 1, kindSetList: 1, kindMove: 1, kindSetNode: 1, kindAdopt: 1,
	kindRaise: 2,
}

// needs is the level that a command needs, its fields counted.
func needs(cmd Command) int {
	n := introduced[cmd.kind()]
	switch c := cmd.(type) {
	case Found:
		if c.Level != 0 {
			n = max(n, 2)
		}
	case PutNode:
		if c.Level != 0 {
			n = max(n, 2)
		}
	}
	return n
}

// Kinds outside of these bounds will never be commands.
const (
	firstKind kind = 1
	lastKind  kind = 199
)

// Raise raises the cluster's level, if nobody is a member but Members, whom the proposer knows to apply that level.
type Raise struct {
	To      int
	Version string   // of the proposer, for people
	Members []string // by name
}

func (Raise) kind() kind { return kindRaise }

// Level is the cluster's.
func (v *View) Level() int { return max(1, v.Cluster.Level) }

func (v *View) raise(c Raise) Result {
	if c.To <= v.Level() {
		return refuse(Invalid, "the cluster is at level %d already", v.Level())
	}
	for _, n := range v.Nodes {
		if !slices.Contains(c.Members, n.Name) {
			return refuse(Invalid, "node %q has joined meanwhile", n.Name)
		}
	}
	v.Cluster.Level, v.Cluster.LevelVersion = c.To, c.Version
	return Result{}
}

// ErrTooNew is in the chain of what a newer version has written and this one does not understand. Unlike a refusal it is no result:
// the replicas that do understand it have changed. Whoever meets it applies nothing more.
var ErrTooNew = errors.New("written by a newer version")

// TooNew is an ErrTooNew.
type TooNew struct {
	What    string // "a command of kind 60"
	Level   int    // that is needed; 0: not known
	Version string // that applies it; "": not known
	Have    int    // what this version applies
}

func (e *TooNew) Unwrap() error { return ErrTooNew }

func (e *TooNew) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s needs a newer version", e.What)
	switch {
	case e.Level > 0 && e.Version != "":
		fmt.Fprintf(&b, ": %s applies it, which knows level %d", e.Version, e.Level)
	case e.Level > 0:
		fmt.Fprintf(&b, ", of level %d", e.Level)
	}
	fmt.Fprintf(&b, "; this one applies up to level %d", e.Have)
	return b.String()
}

// ErrTooEarly is in the chain of what refuses a command that some member may not know.
var ErrTooEarly = errors.New("the cluster is at an older level")

// TooEarly is an ErrTooEarly.
type TooEarly struct{ Need, Have int }

func (e *TooEarly) Unwrap() error { return ErrTooEarly }

func (e *TooEarly) Error() string {
	return fmt.Sprintf("this needs level %d on every node, and the cluster is at level %d", e.Need, e.Have)
}

// Allows returns nil when every member knows the command, as Encode wrote it; else an ErrTooEarly, or an ErrTooNew when not even this
// version does. What is no command at all is allowed: it changes nothing.
func (v *View) Allows(cmd []byte) error {
	if len(cmd) == 0 {
		return nil
	}
	k := kind(cmd[0])
	later := k == kindStickyLearn && sticky.Later(cmd[1:]) != 0
	if _, known := introduced[k]; known && !later && v.Level() >= Level {
		return nil // the usual case: nothing is decoded
	}
	c, err := Decode(cmd)
	switch {
	case errors.Is(err, ErrTooNew):
		return err
	case err != nil:
		return nil
	}
	have := v.Level()
	switch c := c.(type) {
	case Found:
		have = Level // there is nobody yet but its proposer
	case Raise:
		have = c.To // it says itself who can follow
	}
	if n := needs(c); n > have {
		return &TooEarly{Need: n, Have: have}
	}
	return nil
}
