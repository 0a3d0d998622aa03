package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// pages reads a bbolt file without bbolt, which maps the file and trusts it: in a truncated one it would touch pages that are not
// there (SIGBUS), and while it looks for free pages it panics in a goroutine of its own, where nobody can catch it.
//
// The format (bbolt's internal/common), all numbers in the machine's byte order:
//
//	page    id 8 | flags 2 | count 2 | overflow 4 | elements ... | keys and values
//	branch  pos 4 | key size 4 | child 8                          pos counts from the element itself
//	leaf    flags 4 | pos 4 | key size 4 | value size 4           flag 1: the value is a bucket
//	bucket  root 8 | sequence 8 | (root 0: a leaf page of its own)
type pages struct {
	f    io.ReaderAt
	size int64 // of a page
	root uint64
	end  uint64 // the first page that was never used
	seen map[uint64]bool
}

const (
	pageHead    = 16
	pageElement = 16
	pageBranch  = 1
	pageLeaf    = 2
	pageMax     = 1 << 30 // bytes of one page with its overflow
)

var native = binary.NativeEndian

// openPages reads the two meta pages. Both must be valid: bbolt would go on with the older one, which forgets the newest transaction,
// and with it a vote or an entry that was acknowledged. They are 64 bytes within one sector, so that no crash tears them.
func openPages(f io.ReaderAt) (*pages, error) {
	const (
		magic    = 0xED0CDAED
		version  = 2
		metaSize = 64
	)
	p := &pages{f: f, seen: map[uint64]bool{}}
	var newest uint64
	for page := range 2 {
		var b [metaSize]byte
		if _, err := f.ReadAt(b[:], int64(page)*p.size+pageHead); err != nil {
			return nil, fmt.Errorf("meta page %d is missing", page)
		}
		h := fnv.New64a()
		h.Write(b[:metaSize-8])
		if native.Uint32(b[0:]) != magic || native.Uint32(b[4:]) != version || native.Uint64(b[56:]) != h.Sum64() {
			return nil, fmt.Errorf("meta page %d is not valid", page)
		}
		p.size = int64(native.Uint32(b[8:]))
		if txid := native.Uint64(b[48:]); page == 0 || txid > newest {
			newest, p.root, p.end = txid, native.Uint64(b[16:]), native.Uint64(b[40:])
		}
	}
	if p.size < 512 || p.size > pageMax || p.end > 1<<40 {
		return nil, errors.New("the meta pages make no sense")
	}
	return p, nil
}

// length returns how long the file must at least be.
func (p *pages) length() int64 { return int64(p.end) * p.size }

// buckets calls f for every key of every bucket at the top, and verifies the tree on the way.
func (p *pages) buckets(f func(bucket, key, val []byte) error) error {
	return p.walk(p.root, nil, nil, func(name, val []byte, nested bool) error {
		if !nested || len(val) < 16 {
			return fmt.Errorf("%q is no bucket", name)
		}
		each := func(k, v []byte, nested bool) error {
			if nested {
				return fmt.Errorf("bucket %q: %q is a bucket", name, k)
			}
			return f(name, k, v)
		}
		if root := native.Uint64(val); root != 0 {
			return p.walk(root, nil, nil, each)
		}
		return p.page(val[16:], 0, nil, nil, each)
	})
}

// walk reads the page of that number and all below it. Keys must be at least lo and below hi, where these are not nil.
func (p *pages) walk(id uint64, lo, hi []byte, f func(k, v []byte, nested bool) error) error {
	if id < 2 || id >= p.end {
		return fmt.Errorf("page %d is referred to, there are pages 2 to %d", id, p.end-1)
	}
	if p.seen[id] {
		return fmt.Errorf("page %d is referred to twice", id)
	}
	p.seen[id] = true
	var head [pageHead]byte
	if _, err := p.f.ReadAt(head[:], int64(id)*p.size); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	overflow := uint64(native.Uint32(head[12:]))
	if native.Uint64(head[:]) != id || id+overflow >= p.end || int64(overflow+1)*p.size > pageMax {
		return fmt.Errorf("page %d: its head is wrong", id)
	}
	b := make([]byte, int64(overflow+1)*p.size)
	if _, err := p.f.ReadAt(b, int64(id)*p.size); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return p.page(b, id, lo, hi, f)
}

// page verifies one page that has been read.
func (p *pages) page(b []byte, id uint64, lo, hi []byte, f func(k, v []byte, nested bool) error) error {
	if len(b) < pageHead {
		return fmt.Errorf("page %d is too short", id)
	}
	flags, count := native.Uint16(b[8:]), int(native.Uint16(b[10:]))
	if pageHead+count*pageElement > len(b) || flags != pageBranch && flags != pageLeaf || flags == pageBranch && (count == 0 || id == 0) {
		return fmt.Errorf("page %d: flags %#x, %d elements in %d bytes", id, flags, count, len(b))
	}
	// part returns size bytes at pos after element i.
	part := func(i int, pos, size uint64) ([]byte, error) {
		from := uint64(pageHead+i*pageElement) + pos
		if from < uint64(pageHead+count*pageElement) || from+size > uint64(len(b)) {
			return nil, fmt.Errorf("page %d: element %d lies outside", id, i)
		}
		return b[from : from+size : from+size], nil
	}
	key := func(i int) ([]byte, error) {
		e := b[pageHead+i*pageElement:]
		if flags == pageBranch {
			return part(i, uint64(native.Uint32(e)), uint64(native.Uint32(e[4:])))
		}
		return part(i, uint64(native.Uint32(e[4:])), uint64(native.Uint32(e[8:])))
	}
	for i := range count {
		k, err := key(i)
		if err != nil {
			return err
		}
		if lo != nil && bytes.Compare(k, lo) < 0 || hi != nil && bytes.Compare(k, hi) >= 0 {
			return fmt.Errorf("page %d: key %x is out of order", id, k)
		}
		next := hi
		if i+1 < count {
			if next, err = key(i + 1); err != nil {
				return err
			}
			if bytes.Compare(k, next) >= 0 {
				return fmt.Errorf("page %d: key %x is out of order", id, next)
			}
		}
		e := b[pageHead+i*pageElement:]
		if flags == pageBranch {
			err = p.walk(native.Uint64(e[8:]), k, next, f)
		} else {
			var both []byte
			size := uint64(len(k)) + uint64(native.Uint32(e[12:]))
			if both, err = part(i, uint64(native.Uint32(e[4:])), size); err == nil {
				err = f(k, both[len(k):], native.Uint32(e)&1 != 0)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
