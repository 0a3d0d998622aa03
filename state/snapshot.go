package state

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"

	"github.com/skeinlb/skein/state/sticky"
)

// A snapshot is
//
//	magic (6 bytes), format (2), level (2), then frames: length (4), checksum (4), payload; the last has length 0, and nothing follows
//	it
//
// The level is the cluster's: versions that do not apply it refuse the snapshot before they read on. Format 1 has none, and is written
// while the cluster is at level 1, where there may be members that know no other.
//
// Integers are little-endian. A checksum is CRC-32C of everything before it and of its own payload, so that a frame that is
// wrong, missing or out of place is found before a byte of it is used. The payloads, joined, are: length of the view (4), the
// view as JSON, the sticky tables.
const (
	snapshotMagic  = "skein\n"
	formatPlain    = 1
	formatLevelled = 2
	maxFrame       = 1 << 20
)

// ErrSnapshot is the reason for refusing a snapshot that is damaged.
var ErrSnapshot = errors.New("snapshot is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// image is a View as it stands in a snapshot: all of it, the secrets too, in an order that depends on nothing but what it holds.
type image struct {
	LogTime    uint64
	Index      uint64
	Cluster    Cluster
	Revision   ConfigRevision
	Scope      Scope
	Nodes      []Node
	Removed    map[string]string
	Former     []Former `json:",omitempty"`
	Placements []Placement
	Servers    []imageServer
	Lists      map[string][]ListEntry `json:",omitempty"`
	Drained    map[string]Drained     `json:",omitempty"`
	Keys       Keys                   `json:",omitzero"`
	CA         CA
	Tokens     []Token

	Certificates []Certificate `json:",omitempty"`
	Tickets      []TicketKey   `json:",omitempty"`
}

type imageServer struct {
	ServerKey
	Admin
}

func imageOf(v *View, logTime uint64) image {
	im := image{
		LogTime: logTime, Index: v.Index, Cluster: v.Cluster, Revision: v.Revision, Scope: v.Scope, Nodes: v.Nodes,
		Removed: v.Removed, Former: v.Former, Placements: v.SortedPlacements(), Drained: v.Drained, Lists: v.Lists, Keys: v.Keys, CA: v.CA, Tokens: v.Tokens,
		Certificates: v.Certificates, Tickets: v.Tickets,
	}
	for _, k := range slices.SortedFunc(maps.Keys(v.Servers), ServerKey.Compare) {
		im.Servers = append(im.Servers, imageServer{k, v.Servers[k]})
	}
	return im
}

// view returns what im shows, with no Config yet.
func (im *image) view() *View {
	v := &View{
		Index: im.Index, Cluster: im.Cluster, Revision: im.Revision, Scope: im.Scope, Nodes: im.Nodes, Removed: im.Removed, Former: im.Former,
		Placements: make(map[string]Placement, len(im.Placements)), Servers: make(map[ServerKey]Admin, len(im.Servers)),
		Drained: im.Drained, Lists: im.Lists, Keys: im.Keys, CA: im.CA, Tokens: im.Tokens, Certificates: im.Certificates, Tickets: im.Tickets,
	}
	for _, p := range im.Placements {
		v.Placements[p.VIP] = p
	}
	for _, s := range im.Servers {
		v.Servers[s.ServerKey] = s.Admin
	}
	return v
}

// MarshalJSON leaves out what is secret.
func (v View) MarshalJSON() ([]byte, error) {
	im := imageOf(&v, v.LogTime)
	im.Keys, im.CA.KeyPEM = Keys{}, nil
	im.Tokens = slices.Clone(im.Tokens)
	for i := range im.Tokens {
		im.Tokens[i].SecretHash = nil
	}
	im.Former = slices.Clone(im.Former)
	for i := range im.Former {
		im.Former[i].Keys = nil
	}
	im.Certificates, im.Tickets = withoutKeys(im.Certificates, im.Tickets)
	return json.Marshal(im)
}

// Sum is a checksum of all of v but its Index and its LogTime, the secrets included, which it gives nothing away of. Where two nodes that
// have applied the same commands have another one, their states have gone apart.
//
// Versions agree on it as they do on what stands in a snapshot.
func (v *View) Sum() uint32 {
	im := imageOf(v, 0)
	im.Index = 0 // ticks raise it and may change nothing else
	text := sha256.Sum256(im.Revision.Text)
	im.Revision.Text = text[:]  // spares up to 8 MB of garbage
	body, _ := json.Marshal(im) // what was read from JSON can be written so
	sum := sha256.Sum256(body)
	return binary.BigEndian.Uint32(sum[:])
}

type snapshot struct {
	view    *View
	logTime uint64
	tables  *sticky.Frozen
}

// Release lets go of the tables. Persist must have returned.
func (s *snapshot) Release() { s.tables.Release() }

// Persist writes the snapshot.
func (s *snapshot) Persist(w io.Writer) error {
	body, err := json.Marshal(imageOf(s.view, s.logTime))
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	fw := &frameWriter{w: w}
	head := snapshotHead(s.view.Level())
	fw.sum = crc32.Update(0, castagnoli, head)
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	bw := bufio.NewWriterSize(fw, 256<<10) // which is the usual size of a frame
	_, _ = bw.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(body))))
	_, _ = bw.Write(body) // bufio keeps the first error for Flush
	if err := s.tables.Write(bw); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if err := bw.Flush(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if err := fw.frame(nil); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// snapshotHead is what a snapshot of a cluster at that level begins with.
func snapshotHead(level int) []byte {
	b := []byte(snapshotMagic)
	if level < 2 {
		return binary.LittleEndian.AppendUint16(b, formatPlain)
	}
	return binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, formatLevelled), uint16(level))
}

// frameWriter writes each Write as frames.
type frameWriter struct {
	w   io.Writer
	sum uint32
	buf []byte
}

func (f *frameWriter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		part := b[:min(len(b), maxFrame)]
		if err := f.frame(part); err != nil {
			return 0, err
		}
		b = b[len(part):]
	}
	return n, nil
}

func (f *frameWriter) frame(payload []byte) error {
	f.buf = binary.LittleEndian.AppendUint32(f.buf[:0], uint32(len(payload)))
	f.sum = crc32.Update(crc32.Update(f.sum, castagnoli, f.buf), castagnoli, payload)
	f.buf = binary.LittleEndian.AppendUint32(f.buf, f.sum)
	f.buf = append(f.buf, payload...)
	_, err := f.w.Write(f.buf)
	return err
}

// frameReader reads what frameWriter wrote and returns io.EOF only after the last frame, if nothing follows it.
type frameReader struct {
	r    io.Reader
	sum  uint32
	buf  []byte
	rest []byte // of buf, not yet read
	err  error
}

func (f *frameReader) Read(b []byte) (int, error) {
	for len(f.rest) == 0 {
		if f.err == nil {
			f.err = f.next()
		}
		if f.err != nil {
			return 0, f.err
		}
	}
	n := copy(b, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

func (f *frameReader) next() error {
	var head [8]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return short(err)
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size > maxFrame {
		return fmt.Errorf("%w: impossible length", ErrSnapshot)
	}
	f.buf = slices.Grow(f.buf[:0], int(size))[:size]
	if _, err := io.ReadFull(f.r, f.buf); err != nil {
		return short(err)
	}
	f.sum = crc32.Update(crc32.Update(f.sum, castagnoli, head[:4]), castagnoli, f.buf)
	if f.sum != binary.LittleEndian.Uint32(head[4:]) {
		return fmt.Errorf("%w: wrong checksum", ErrSnapshot)
	}
	if size == 0 {
		if _, err := io.ReadFull(f.r, head[:1]); err != io.EOF {
			return fmt.Errorf("%w: something follows its end", ErrSnapshot)
		}
		return io.EOF
	}
	f.rest = f.buf
	return nil
}

// short turns the end of the file, where there must be more, into what it means.
func short(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: truncated", ErrSnapshot)
	}
	return err
}

// readSnapshot reads a whole snapshot, of a cluster of that level at most, and changes nothing in tables.
func readSnapshot(r io.Reader, tables *sticky.Tables, most int) (*View, uint64, *sticky.Loaded, error) {
	head := make([]byte, len(snapshotMagic)+2)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, 0, nil, short(err)
	}
	if !bytes.HasPrefix(head, []byte(snapshotMagic)) {
		return nil, 0, nil, fmt.Errorf("%w: it does not begin as a snapshot does", ErrSnapshot)
	}
	switch f := binary.LittleEndian.Uint16(head[len(snapshotMagic):]); f {
	case formatPlain:
	case formatLevelled:
		var level [2]byte
		if _, err := io.ReadFull(r, level[:]); err != nil {
			return nil, 0, nil, short(err)
		}
		if n := int(binary.LittleEndian.Uint16(level[:])); n > most {
			return nil, 0, nil, &TooNew{What: "the snapshot", Level: n, Have: most}
		}
		head = append(head, level[:]...)
	default:
		return nil, 0, nil, &TooNew{What: fmt.Sprintf("a snapshot of format %d", f), Have: most}
	}
	fr := &frameReader{r: r, sum: crc32.Update(0, castagnoli, head)}
	var n [4]byte
	if _, err := io.ReadFull(fr, n[:]); err != nil {
		return nil, 0, nil, short(err)
	}
	body, err := io.ReadAll(io.LimitReader(fr, int64(binary.LittleEndian.Uint32(n[:]))))
	if err != nil {
		return nil, 0, nil, err
	}
	var im image
	if err := json.Unmarshal(body, &im); err != nil {
		return nil, 0, nil, fmt.Errorf("%w: view: %v", ErrSnapshot, err)
	}
	if im = (image{}); !strict(body, &im) {
		return nil, 0, nil, &TooNew{What: "a snapshot with a further field", Have: most}
	}
	loaded, err := tables.Load(fr)
	if err != nil {
		if errors.Is(err, sticky.ErrCorrupt) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: %w", ErrSnapshot, err)
		}
		return nil, 0, nil, err
	}
	return im.view(), im.LogTime, loaded, nil
}
