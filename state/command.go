package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/skeinlb/skein/state/sticky"
)

// Command is one change, as it stands in the log. Everything random and every wall clock in it comes from its proposer.
//
// The log outlives versions: a kind keeps its number and its meaning for ever, and a new meaning is a new kind. A new kind, and a new
// field of an old one, has a level of its own (level.go): it is proposed only when every member knows it.
type Command interface{ kind() kind }

type kind byte

const (
	kindFound       kind = 1
	kindSetConfig   kind = 2
	kindPlace       kind = 3
	kindUnplace     kind = 4
	kindSetServer   kind = 5
	kindPutNode     kind = 6
	kindRemoveNode  kind = 7
	kindPutToken    kind = 8
	kindUseToken    kind = 9
	kindRotateKeys  kind = 10
	kindStickyLearn kind = 11
	kindTick        kind = 12
	kindRecover     kind = 13

	kindPutCertificate    kind = 20
	kindRemoveCertificate kind = 21
	kindPutTicketKey      kind = 22

	kindSetList kind = 30

	kindMove    kind = 40
	kindSetNode kind = 41

	kindAdopt kind = 50

	kindRaise kind = 60
)

// Found makes the cluster. It is the first command, and works once.
type Found struct {
	ClusterID string
	CA        CA
	Gossip    []byte // key: 16, 24 or 32 bytes
	Heartbeat []byte // key: 32 bytes
	Node      Node   // the first member
	At        time.Time
	Level     int `json:",omitempty"` // of the cluster from the first; 0: 1
}

// SetConfig replaces the configuration, if it still is the one that BasedOn names. Admin state of servers, placements of VIPs and
// sticky tables that the new configuration no longer names are dropped with it.
type SetConfig struct {
	Text    []byte
	Scope   Scope // of Text, see ScopeOf
	Message string
	Author  string
	At      time.Time
	BasedOn uint64
}

// Place gives a VIP to a node, if the placement it was decided on still stands. The new epoch is the cluster's generation and the
// command's log index.
type Place struct {
	VIP    string
	Node   string
	Expect Epoch // of the placement that stands; zero: none
}

// Unplace takes a VIP from its node and gives it to nobody.
type Unplace struct {
	VIP    string
	Expect Epoch
}

// SetServer sets what an operator wants of a server. What ends up equal to Default is forgotten.
type SetServer struct {
	Backend string
	Server  string
	State   AdminState // "": as it was
	Weight  *int       // nil: as it was; -1: the file's; else 0..256
	By      string
	At      time.Time
}

// PutNode adds a member, or changes one: then the fingerprint must be the one on record, or Replaces must name that one
// (a renewed certificate). JoinedIndex and Former are the machine's own.
type PutNode struct {
	Node     Node
	Replaces string
	Level    int `json:",omitempty"` // of a newcomer: the newest that it applies; 0: it, or the cluster, knows of none
}

// RemoveNode removes a member, refuses its certificates from now on, and puts new keys before the present ones. The keys that the
// removed node knows are retired by a RotateKeys with Keep = 1, once every member has applied this.
type RemoveNode struct {
	Name      string
	Gossip    []byte
	Heartbeat []byte
}

// PutToken stores a token under a new ID. It expires TTL of log time later.
type PutToken struct {
	ID         string
	SecretHash []byte
	Role       Role
	TTL        time.Duration
	Uses       int
}

// UseToken takes one use of a token. By names who joins (the fingerprint of its key, say): it may ask again, when the answer was
// lost, and that takes no second use.
type UseToken struct {
	ID         string
	SecretHash []byte
	Role       Role // that the host wants; must be the token's
	By         string
}

// RotateKeys puts new keys before the present ones (none when empty) and then keeps the Keep newest of each.
type RotateKeys struct {
	Gossip    []byte
	Heartbeat []byte
	Keep      int
}

// StickyLearn carries a batch that sticky.Tables.Drain returned.
type StickyLearn struct{ Batch []byte }

// Tick advances log time. The leader proposes it about once a second, with what its monotonic clock counted since the last one,
// so that time in the log passes while there is a leader, and no wall clock can make it jump.
type Tick struct{ ElapsedMs uint64 }

func (Found) kind() kind       { return kindFound }
func (SetConfig) kind() kind   { return kindSetConfig }
func (Place) kind() kind       { return kindPlace }
func (Unplace) kind() kind     { return kindUnplace }
func (SetServer) kind() kind   { return kindSetServer }
func (PutNode) kind() kind     { return kindPutNode }
func (RemoveNode) kind() kind  { return kindRemoveNode }
func (PutToken) kind() kind    { return kindPutToken }
func (UseToken) kind() kind    { return kindUseToken }
func (RotateKeys) kind() kind  { return kindRotateKeys }
func (StickyLearn) kind() kind { return kindStickyLearn }
func (Tick) kind() kind        { return kindTick }
func (Move) kind() kind        { return kindMove }
func (SetNode) kind() kind     { return kindSetNode }

// Encode returns cmd as it goes into the log: a byte for its kind, then JSON; a sticky batch, of which there are thousands a
// second, goes as it is.
func Encode(cmd Command) []byte {
	if l, ok := cmd.(StickyLearn); ok {
		return append([]byte{byte(kindStickyLearn)}, l.Batch...)
	}
	body, err := json.Marshal(cmd)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", cmd, err)) // only values of our own types get here, and none of them can fail
	}
	return append([]byte{byte(cmd.kind())}, body...)
}

// Decode reads what Encode wrote. The error is a *Refusal (ErrCorrupt, ErrUnknownCommand) or a *TooNew. A StickyLearn refers to b.
func Decode(b []byte) (Command, error) {
	if len(b) == 0 {
		return nil, refuse(Corrupt, "command is empty").Err()
	}
	k, body := kind(b[0]), b[1:]
	switch k {
	case kindFound:
		return decode[Found](body)
	case kindSetConfig:
		return decode[SetConfig](body)
	case kindPlace:
		return decode[Place](body)
	case kindUnplace:
		return decode[Unplace](body)
	case kindSetServer:
		return decode[SetServer](body)
	case kindPutNode:
		return decode[PutNode](body)
	case kindRemoveNode:
		return decode[RemoveNode](body)
	case kindPutToken:
		return decode[PutToken](body)
	case kindUseToken:
		return decode[UseToken](body)
	case kindRotateKeys:
		return decode[RotateKeys](body)
	case kindStickyLearn:
		if v := sticky.Later(body); v != 0 {
			return nil, &TooNew{What: fmt.Sprintf("a sticky batch of version %d", v), Have: Level}
		}
		return StickyLearn{Batch: body}, nil
	case kindTick:
		return decode[Tick](body)
	case kindRecover:
		return decode[Recover](body)
	case kindPutCertificate:
		return decode[PutCertificate](body)
	case kindRemoveCertificate:
		return decode[RemoveCertificate](body)
	case kindPutTicketKey:
		return decode[PutTicketKey](body)
	case kindSetList:
		return decode[SetList](body)
	case kindMove:
		return decode[Move](body)
	case kindSetNode:
		return decode[SetNode](body)
	case kindAdopt:
		return decode[Adopt](body)
	case kindRaise:
		return decode[Raise](body)
	}
	if firstKind <= k && k <= lastKind {
		return nil, &TooNew{What: fmt.Sprintf("a command of kind %d", k), Have: Level}
	}
	return nil, refuse(UnknownCommand, "no command has kind %d", k).Err()
}

// decode reads one JSON object and nothing after it. A command that is sound but has a field that this version does not know is too
// new: to ignore the field would be to apply something else than the replicas that know it.
func decode[C Command](body []byte) (Command, error) {
	var c C
	if strict(body, &c) {
		return c, nil
	}
	if whole(body, &c, false) {
		return nil, &TooNew{What: fmt.Sprintf("a command of kind %d with a further field", c.kind()), Have: Level}
	}
	return nil, refuse(Corrupt, "command is corrupt").Err() // the decoder's text may differ between versions, results must not
}

// strict reads body as one JSON value of which every field is known.
func strict(body []byte, into any) bool { return whole(body, into, true) }

func whole(body []byte, into any, known bool) bool {
	d := json.NewDecoder(bytes.NewReader(body))
	if known {
		d.DisallowUnknownFields()
	}
	return d.Decode(into) == nil && !d.More() && d.InputOffset() == int64(len(body))
}
