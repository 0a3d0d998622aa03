package state

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Code says how a command ended. Codes travel between nodes of different versions: a number never changes its meaning.
type Code uint8

const (
	OK             Code = 0
	Corrupt        Code = 1  // the bytes are no command
	UnknownCommand Code = 2  // a kind that this version does not know
	NotFounded     Code = 3  // the cluster does not exist yet
	StaleRevision  Code = 4  // made from a configuration that is no longer the current one
	StaleEpoch     Code = 5  // made from a placement that is no longer the current one
	UnknownVIP     Code = 6  // not in the current configuration
	UnknownServer  Code = 7  // not in the current configuration
	UnknownNode    Code = 8  // no member
	BadToken       Code = 9  // unknown, wrong, expired or used up
	Exists         Code = 10 // the name is taken
	Removed        Code = 11 // the certificate belongs to a node that was removed
	Invalid        Code = 12 // a value that makes no sense

	UnknownCertificate Code = 20 // not in the store
	InUse              Code = 21 // the configuration names it

	UnknownList Code = 30 // not in the current configuration
)

// The refusals that a caller decides on, for errors.Is. What errors.As finds as a *Refusal has the details.
var (
	ErrCorrupt        = errors.New("corrupt command")
	ErrUnknownCommand = errors.New("unknown kind of command")
	ErrNotFounded     = errors.New("cluster not founded")
	ErrStaleRevision  = errors.New("stale revision")
	ErrStaleEpoch     = errors.New("stale epoch")
	ErrUnknownVIP     = errors.New("unknown vip")
	ErrUnknownServer  = errors.New("unknown server")
	ErrUnknownNode    = errors.New("unknown node")
	ErrBadToken       = errors.New("bad token")
	ErrExists         = errors.New("already exists")
	ErrRemoved        = errors.New("node was removed")
	ErrInvalid        = errors.New("invalid command")

	ErrUnknownCertificate = errors.New("unknown certificate")
	ErrInUse              = errors.New("in use")
	ErrUnknownList        = errors.New("unknown list")
)

var sentinels = map[Code]error{
	Corrupt: ErrCorrupt, UnknownCommand: ErrUnknownCommand, NotFounded: ErrNotFounded, StaleRevision: ErrStaleRevision,
	StaleEpoch: ErrStaleEpoch, UnknownVIP: ErrUnknownVIP, UnknownServer: ErrUnknownServer, UnknownNode: ErrUnknownNode,
	BadToken: ErrBadToken, Exists: ErrExists, Removed: ErrRemoved, Invalid: ErrInvalid,
	UnknownCertificate: ErrUnknownCertificate, InUse: ErrInUse,
	UnknownList: ErrUnknownList,
}

// Result is the answer to one command, the same on every replica.
type Result struct {
	Code     Code
	Message  string // why it was refused
	Index    uint64 // of the command
	Revision uint64 // the configuration's number after the command
	Epoch    Epoch  // of Place: the new one when OK, the one that stands when stale; of Recover: its generation
}

// Err returns nil when the command was carried out, else a *Refusal.
func (r Result) Err() error {
	if r.Code == OK {
		return nil
	}
	return &Refusal{r}
}

// Refusal is the error of a command that changed nothing.
type Refusal struct{ Result Result }

func (e *Refusal) Error() string { return e.Result.Message }

// Unwrap returns the sentinel of the result's code; nil for a code from a newer version.
func (e *Refusal) Unwrap() error { return sentinels[e.Result.Code] }

// EncodeResult returns r as bytes that DecodeResult reads on any node.
func EncodeResult(r Result) []byte {
	b := make([]byte, 0, 24+len(r.Message))
	b = append(b, byte(r.Code))
	for _, n := range [...]uint64{r.Index, r.Revision, r.Epoch.Generation, r.Epoch.Index} {
		b = binary.AppendUvarint(b, n)
	}
	return append(b, r.Message...)
}

// DecodeResult reads what EncodeResult wrote.
func DecodeResult(b []byte) (Result, error) {
	if len(b) == 0 {
		return Result{}, errors.New("decode result: empty")
	}
	r := Result{Code: Code(b[0])}
	b = b[1:]
	for _, p := range [...]*uint64{&r.Index, &r.Revision, &r.Epoch.Generation, &r.Epoch.Index} {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			return Result{}, errors.New("decode result: truncated")
		}
		*p, b = n, b[size:]
	}
	r.Message = string(b)
	return r, nil
}

func refuse(c Code, format string, args ...any) Result {
	return Result{Code: c, Message: fmt.Sprintf(format, args...)}
}
