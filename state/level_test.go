package state

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/skeinlb/skein/internal/golden"
)

// testdata/commands has every kind of command with all of its fields as it stands in the log, for ever. What a version has once
// written, all later ones read: a line changes only before the version that brought it is released.
func TestEveryCommandIsWrittenAsItAlwaysWas(t *testing.T) {
	var b strings.Builder
	seen := map[kind]bool{}
	for _, c := range every() {
		seen[c.kind()] = true
		text := Encode(c)
		body := string(text[1:])
		if c.kind() == kindStickyLearn {
			body = fmt.Sprintf("%x", text[1:])
		}
		fmt.Fprintf(&b, "%d %T level=%d %s\n", text[0], c, introduced[c.kind()], body)
	}
	for k := range introduced {
		if !seen[k] {
			t.Errorf("kind %d is in no line: add it to every", k)
		}
	}
	golden.File(t, "testdata/commands", b.String()) // a new meaning is a new kind, a new field needs a level
}

// Every kind that can be decoded has a level, none is above this version's, and those without one are not known.
func TestEveryKindHasALevel(t *testing.T) {
	for k := range 256 {
		body := []byte("{}")
		if kind(k) == kindStickyLearn {
			body = []byte{1}
		}
		_, err := Decode(append([]byte{byte(k)}, body...))
		level, ok := introduced[kind(k)]
		known := !errors.Is(err, ErrTooNew) && !errors.Is(err, ErrUnknownCommand)
		switch {
		case known != ok:
			t.Errorf("kind %d is decoded: %v, has a level: %v", k, known, ok)
		case ok && (level < 1 || level > Level):
			t.Errorf("kind %d has level %d", k, level)
		}
	}
}

func TestWhatOneMemberMayNotKnowIsRefusedBeforeItIsProposed(t *testing.T) {
	next := []byte{61, '{', '}'}
	node := PutNode{Node: testNode("lb2", "c2")}
	levelled := node
	levelled.Level = 2
	for _, c := range []struct {
		name  string
		level int
		cmd   []byte
		want  error
	}{
		{"an old kind in an old cluster", 1, Encode(Place{VIP: "a"}), nil},
		{"an old kind in a new cluster", 2, Encode(Place{VIP: "a"}), nil},
		{"an old kind without its new field", 1, Encode(node), nil},
		{"a new field in an old cluster", 1, Encode(levelled), ErrTooEarly},
		{"a new field in a new cluster", 2, Encode(levelled), nil},
		{"a kind that this version does not know", 1, next, ErrTooNew},
		{"the same in a cluster at this version's level", Level, next, ErrTooNew},
		{"a field that this version does not know", 1, []byte("\x03{\"Colour\":1}"), ErrTooNew},
		{"a raise says itself who can follow", 1, Encode(Raise{To: 2}), nil},
		{"the first command of a cluster", 1, Encode(Found{Level: Level}), nil},
		{"no command", 1, nil, nil},
		{"a damaged command", 1, []byte("\x03{\"VIP"), nil},
		{"a kind that never will be", 1, []byte{250}, nil},
		{"a sticky batch", 1, Encode(StickyLearn{Batch: []byte{1}}), nil},
		{"a sticky batch of a newer version", Level, Encode(StickyLearn{Batch: []byte{2}}), ErrTooNew},
	} {
		v := &View{Cluster: Cluster{Level: c.level}}
		if err := v.Allows(c.cmd); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// A machine that has met what it does not know is as it was, and its snapshot is read by the version that goes on.
func TestWhatIsTooNewChangesNothing(t *testing.T) {
	for _, cmd := range [][]byte{{61, '{', '}'}, {byte(kindStickyLearn), 2, 7}, {byte(kindStickyLearn), 199}, []byte("\x03{\"Colour\":1}"), Encode(Raise{To: Level + 1, Version: "9.9", Members: []string{"lb1"}})} {
		l := populated(t)
		before := l.snapshot()
		err, _ := l.Apply(99, cmd).(error)
		if !errors.Is(err, ErrTooNew) {
			t.Errorf("%q: %v, want ErrTooNew", cmd, err)
		}
		if !bytes.Equal(l.snapshot(), before) {
			t.Errorf("%q changed the state", cmd)
		}
	}
}

// What no version will ever write as the first byte of a sticky batch is damage, and refused by all alike.
func TestADamagedBatchIsNoNewerOne(t *testing.T) {
	for _, cmd := range [][]byte{{byte(kindStickyLearn)}, {byte(kindStickyLearn), 0}, {byte(kindStickyLearn), 200}, {byte(kindStickyLearn), 1, 7}} {
		b, _ := populated(t).Apply(99, cmd).([]byte)
		if r, err := DecodeResult(b); err != nil || r.Code != Corrupt {
			t.Errorf("%v: %v, %v", cmd, r, err)
		}
	}
}

func TestAClusterIsFoundedAtTheLevelOfItsFounder(t *testing.T) {
	for level, want := range map[int]int{0: 1, 2: 2} {
		l := newLog(t)
		c := foundCmd()
		c.Level = level
		l.must(c)
		if got := l.Views().Get().Level(); got != want {
			t.Errorf("founded with %d: level %d, want %d", level, got, want)
		}
	}
}

func TestASnapshotOfANewerVersionIsRefusedAsSuch(t *testing.T) {
	l := populated(t)
	l.must(Raise{To: 2, Members: []string{"lb1"}})
	good := l.snapshot()
	later := bytes.Clone(good)
	later[len(snapshotMagic)+2] = Level + 1
	format := bytes.Clone(good)
	format[len(snapshotMagic)]++
	for _, c := range []struct {
		name string
		b    []byte
		by   *Machine
		want string
	}{
		{"by itself", good, New(), ""},
		{"by a version of level 1", good, NewAt(1), "the snapshot needs a newer version, of level 2; this one applies up to level 1"},
		{"of a further level", later, New(), "the snapshot needs a newer version, of level 3; this one applies up to level 2"},
		{"of a further format", format, New(), "a snapshot of format 3 needs a newer version; this one applies up to level 2"},
	} {
		err := c.by.Restore(bytes.NewReader(c.b))
		if got := fmt.Sprint(err); c.want != "" && (got != "restore snapshot: "+c.want || !errors.Is(err, ErrTooNew)) || c.want == "" && err != nil {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}
