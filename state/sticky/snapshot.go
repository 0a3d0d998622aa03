package sticky

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"
)

// Frozen is all tables as they were at one moment. While one is not released, a page is copied before it is first written.
type Frozen struct {
	owner   *Tables
	release sync.Once
	tables  []frozenTable
}

type frozenTable struct {
	spec  Spec
	pages []*page
	head  uint32
	count uint64
}

// Freeze takes the moment. It costs a pointer per 64 entries; the copying is spread over later writes.
func (ts *Tables) Freeze() *Frozen {
	ts.snapshots.Add(1)
	f := &Frozen{owner: ts}
	for _, t := range ts.set.Load().order {
		pages := *t.pages.Load()
		ft := frozenTable{spec: *t.spec.Load(), head: t.head, count: uint64(t.count.Load()), pages: make([]*page, len(t.gens))}
		for i := range ft.pages {
			ft.pages[i] = pages[i].Load()
		}
		t.gen++
		f.tables = append(f.tables, ft)
	}
	return f
}

// Release ends the copying, and f with it: Write must have returned. Any number of calls are one.
func (f *Frozen) Release() {
	f.release.Do(func() {
		f.tables = nil
		f.owner.snapshots.Add(-1)
	})
}

// Write writes the tables: their number (4 bytes), then for each: ID (8), ttl in milliseconds (8), size (8), length of the name
// (2), the name, number of entries (8) and the entries, oldest first: key (16), server (8), expires (8). Integers are
// little-endian. The same state makes the same bytes, whatever way led to it. The caller adds checksums.
func (f *Frozen) Write(w io.Writer) error {
	bw := bufio.NewWriterSize(w, 64<<10)
	var b []byte
	b = binary.LittleEndian.AppendUint32(b, uint32(len(f.tables)))
	for i := range f.tables {
		t := &f.tables[i]
		b = binary.LittleEndian.AppendUint64(b, t.spec.ID)
		b = binary.LittleEndian.AppendUint64(b, t.spec.ttlMs())
		b = binary.LittleEndian.AppendUint64(b, uint64(t.spec.Size))
		b = binary.LittleEndian.AppendUint16(b, uint16(len(t.spec.Name)))
		b = append(b, t.spec.Name...)
		b = binary.LittleEndian.AppendUint64(b, t.count)
		if _, err := bw.Write(b); err != nil {
			return err
		}
		b = b[:0]
		for pos := t.head; pos != none; {
			e := &t.pages[pos>>pageBits][pos&(pageSize-1)]
			b = append(b, e.key[:]...)
			b = binary.LittleEndian.AppendUint64(b, e.server)
			b = binary.LittleEndian.AppendUint64(b, e.expires)
			if _, err := bw.Write(b); err != nil {
				return err
			}
			b = b[:0]
			pos = e.next
		}
	}
	if _, err := bw.Write(b); err != nil { // the number alone, when there is no table
		return err
	}
	return bw.Flush()
}

// Loaded are tables that were read and are not yet in use.
type Loaded struct{ set *tableSet }

// Load reads what Write wrote, to the end of r, aside of the present tables.
func (ts *Tables) Load(r io.Reader) (*Loaded, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	var b [34]byte
	read := func(n int) error {
		if _, err := io.ReadFull(br, b[:n]); err != nil {
			return fmt.Errorf("read sticky tables: %w", err)
		}
		return nil
	}
	if err := read(4); err != nil {
		return nil, err
	}
	set := &tableSet{byID: map[uint64]*table{}}
	for range binary.LittleEndian.Uint32(b[:]) {
		if err := read(26); err != nil {
			return nil, err
		}
		ttlMs, size := binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
		name := make([]byte, binary.LittleEndian.Uint16(b[24:]))
		spec := Spec{
			ID:   binary.LittleEndian.Uint64(b[:]),
			TTL:  time.Duration(min(ttlMs, uint64(MaxTTL/time.Millisecond)+1)) * time.Millisecond,
			Size: int(min(size, MaxSize+1)),
		}
		if _, err := io.ReadFull(br, name); err != nil {
			return nil, fmt.Errorf("read sticky tables: %w", err)
		}
		spec.Name = string(name)
		if err := spec.Check(); err != nil {
			return nil, fmt.Errorf("read sticky tables: %w: %w", err, ErrCorrupt)
		}
		if n := len(set.order); n > 0 && set.order[n-1].id >= spec.ID {
			return nil, fmt.Errorf("read sticky tables: table %q is out of order: %w", spec.Name, ErrCorrupt)
		}
		t := newTable(ts, spec)
		if err := read(8); err != nil {
			return nil, err
		}
		for range binary.LittleEndian.Uint64(b[:]) {
			if err := read(32); err != nil {
				return nil, err
			}
			key := Key(b[:16])
			h := ts.hash(&key)
			if t.find(t.shard(h), &key, h) != none {
				return nil, fmt.Errorf("read sticky tables: table %q has a key twice: %w", spec.Name, ErrCorrupt)
			}
			t.insert(&key, h, binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:]))
		}
		set.byID[spec.ID] = t
		set.order = append(set.order, t)
	}
	if _, err := br.ReadByte(); err == nil {
		return nil, fmt.Errorf("read sticky tables: something follows the last table: %w", ErrCorrupt)
	} else if err != io.EOF {
		return nil, fmt.Errorf("read sticky tables: %w", err)
	}
	return &Loaded{set: set}, nil
}

// Adopt replaces all tables by those of l, at the log time to which they belong. What was learned and not yet committed is lost.
// l must not be used again.
func (ts *Tables) Adopt(l *Loaded, logTime uint64) {
	old := ts.set.Load()
	ts.logTime.Store(logTime)
	ts.set.Store(l.set)
	for _, t := range old.order {
		t.close()
	}
}
