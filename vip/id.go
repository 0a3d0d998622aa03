package vip

import (
	"crypto/sha256"
	"encoding/binary"
)

// nodeID and vipID stand for names in heartbeats and in the machine: fixed size, no strings to bound. Setup.Check refuses two
// names with one hash.
type (
	nodeID uint64
	vipID  uint64
)

func idOf(node string) nodeID  { return nodeID(hash64("node", node)) }
func vipKey(name string) vipID { return vipID(hash64("vip", name)) }

func hash64(kind, name string) uint64 {
	h := sha256.Sum256([]byte(kind + "\x00" + name))
	return binary.BigEndian.Uint64(h[:])
}
