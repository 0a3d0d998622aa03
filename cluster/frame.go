package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A frame is one message between nodes on the forward and join protocols:
//
//	0        4      5              13
//	| length | kind | id           | body ... |
//
// length counts what follows it, id pairs an answer with its question. All numbers are big-endian.
type frame struct {
	kind byte
	id   uint64
	body []byte
}

// The kinds of a frame. Numbers are on the wire; new ones are added at the end. A question of a kind that is not known is refused with
// ErrUnknownQuestion, and the conversation goes on: a newer node may ask an older one.
const (
	framePropose byte = 1 // body: a command
	frameJoin    byte = 2 // body: joinRequest as JSON
	frameRenew   byte = 3 // body: a certificate signing request, DER
	frameOK      byte = 4 // body: what the question's kind asks for
	frameRefused byte = 5 // body: an error code, then its text
	frameIndex   byte = 6 // no body; the answer is the index that the node has applied. Any node answers
	frameRelay   byte = 7 // as framePropose, of a node that knows no leader. Any node answers
	frameLog     byte = 8 // no body; the answer is a logEnd as JSON. Any node answers
)

const (
	frameHead = 4 + 1 + 8
	// maxFrame bounds a message of a peer that proved its identity: a configuration is at most 4 MiB, a command is little more.
	maxFrame = 8 << 20
	// maxJoinFrame bounds a message of somebody who has not proved anything yet.
	maxJoinFrame = 64 << 10
)

var errFrame = errors.New("malformed message")

func appendFrame(dst []byte, f frame) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(frameHead-4+len(f.body)))
	dst = append(dst, f.kind)
	dst = binary.BigEndian.AppendUint64(dst, f.id)
	return append(dst, f.body...)
}

// readFrame reads one frame. It allocates no more than has really arrived, whatever length the head claims.
func readFrame(r io.Reader, limit int) (frame, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	n := int64(binary.BigEndian.Uint32(head[:4])) - (frameHead - 4)
	if n < 0 || n > int64(limit) {
		return frame{}, fmt.Errorf("%w: a body of %d bytes, at most %d are allowed", errFrame, n, limit)
	}
	f := frame{kind: head[4], id: binary.BigEndian.Uint64(head[5:])}
	if f.kind == 0 {
		return frame{}, fmt.Errorf("%w: kind 0", errFrame)
	}
	const step = 64 << 10
	for int64(len(f.body)) < n {
		at := len(f.body)
		f.body = append(f.body, make([]byte, min(step, n-int64(at)))...)
		if _, err := io.ReadFull(r, f.body[at:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return frame{}, err
		}
	}
	return f, nil
}
