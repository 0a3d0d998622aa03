package cert

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
)

// SealKey encrypts what is secret in the replicated state. Every member has it in a file of its own, and it is neither in the log nor
// in a snapshot. The zero SealKey is none.
type SealKey []byte

// sealKeySize is AES-256's.
const sealKeySize = 32

// ErrNoSealKey says that this node has no sealing key.
var ErrNoSealKey = errors.New("this node has no key to seal with")

// ErrSealed says that something cannot be opened: it was sealed with another key, for another purpose, or was changed.
var ErrSealed = errors.New("sealed with another key, or damaged")

// NewSealKey makes a key.
func NewSealKey() SealKey {
	k := make(SealKey, sealKeySize)
	rand.Read(k)
	return k
}

func (k SealKey) aead() (cipher.AEAD, error) {
	if len(k) != sealKeySize {
		return nil, ErrNoSealKey
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Seal encrypts b for one purpose: what was sealed for another is not opened.
func (k SealKey) Seal(purpose string, b []byte) ([]byte, error) {
	a, err := k.aead()
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	nonce := make([]byte, a.NonceSize())
	rand.Read(nonce) // 96 bits, for far fewer than the 2^32 messages that one key may take
	return a.Seal(nonce, nonce, b, []byte(purpose)), nil
}

// Open decrypts what Seal made for that purpose.
func (k SealKey) Open(purpose string, sealed []byte) ([]byte, error) {
	a, err := k.aead()
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	n := a.NonceSize()
	if len(sealed) < n {
		return nil, ErrSealed
	}
	b, err := a.Open(nil, sealed[:n], sealed[n:], []byte(purpose))
	if err != nil {
		return nil, ErrSealed
	}
	return b, nil
}

// KeyPurpose is what a certificate's key is sealed for, so that none can be put under another name.
func KeyPurpose(name, algorithm string) string { return "key of certificate " + algorithm + " " + name }

// TicketPurpose is what session ticket keys are sealed for.
const TicketPurpose = "session ticket key"
