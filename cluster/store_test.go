package cluster

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
)

func newStore(t *testing.T) (*store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), fileStore)
	return reopen(t, path), path
}

func reopen(t *testing.T, path string) *store {
	t.Helper()
	if err := checkDatabase(path); err != nil {
		t.Fatal(err)
	}
	s, err := openStore(path, &disk{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close() })
	return s
}

func entries(from, to uint64) []*raft.Log {
	var ls []*raft.Log
	for i := from; i <= to; i++ {
		ls = append(ls, &raft.Log{Index: i, Term: 1 + i/10, Type: raft.LogCommand, Data: []byte(fmt.Sprint("entry ", i))})
	}
	return ls
}

// extentOf is what a reader of the store sees: its ends, and that every entry between them is there and is the right one.
func extentOf(t *testing.T, s *store) (first, last uint64) {
	t.Helper()
	first, _ = s.FirstIndex()
	last, _ = s.LastIndex()
	for i := first; i <= last && i > 0; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil || string(l.Data) != fmt.Sprint("entry ", i) {
			t.Fatalf("entry %d: %q, %v", i, l.Data, err)
		}
	}
	for _, i := range []uint64{0, first - 1, last + 1} {
		if err := s.GetLog(i, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
			t.Fatalf("entry %d outside of %d to %d: %v, want %v", i, first, last, err, raft.ErrLogNotFound)
		}
	}
	return first, last
}

// What is stored comes back, from memory and from the file.
func TestStoreGivesBackWhatItTook(t *testing.T) {
	s, path := newStore(t)
	want := []*raft.Log{
		{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: []byte("c")},
		{Index: 2, Term: 7, Type: raft.LogNoop, AppendedAt: time.Unix(1700000000, 123)},
		{Index: 3, Term: 7, Type: raft.LogCommand, Data: bytes.Repeat([]byte("x"), recentMax+1), Extensions: []byte("ext")},
	}
	if err := s.StoreLogs(want); err != nil {
		t.Fatal(err)
	}
	check := func(s *store) {
		t.Helper()
		for _, w := range want {
			var got raft.Log
			if err := s.GetLog(w.Index, &got); err != nil {
				t.Fatal(err)
			}
			if len(got.Data) == 0 {
				got.Data = nil
			}
			if d := cmp.Diff(*w, got); d != "" {
				t.Errorf("entry %d (-want +got):\n%s", w.Index, d)
			}
		}
	}
	check(s)
	s.close()
	check(reopen(t, path))
}

func TestStoreTruncates(t *testing.T) {
	for _, tc := range []struct {
		name     string
		from, to uint64 // stored
		del      [2]uint64
		first    uint64
		last     uint64
		refused  bool
	}{
		{name: "a prefix", from: 1, to: 10, del: [2]uint64{1, 4}, first: 5, last: 10},
		{name: "a suffix", from: 1, to: 10, del: [2]uint64{7, 10}, first: 1, last: 6},
		{name: "all", from: 1, to: 10, del: [2]uint64{1, 10}},
		{name: "more than there is", from: 5, to: 10, del: [2]uint64{1, 100}},
		{name: "before the beginning", from: 5, to: 10, del: [2]uint64{1, 3}, first: 5, last: 10},
		{name: "a long prefix, in chunks", from: 1, to: 3*deleteChunk + 7, del: [2]uint64{1, 3 * deleteChunk}, first: 3*deleteChunk + 1, last: 3*deleteChunk + 7},
		{name: "a long suffix, in chunks", from: 1, to: 3*deleteChunk + 7, del: [2]uint64{5, 3*deleteChunk + 7}, first: 1, last: 4},
		{name: "out of the middle", from: 1, to: 10, del: [2]uint64{4, 6}, first: 1, last: 10, refused: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, path := newStore(t)
			if err := s.StoreLogs(entries(tc.from, tc.to)); err != nil {
				t.Fatal(err)
			}
			if err := s.DeleteRange(tc.del[0], tc.del[1]); (err != nil) != tc.refused {
				t.Fatalf("delete: %v", err)
			}
			check := func(s *store) uint64 {
				t.Helper()
				if first, last := extentOf(t, s); first != tc.first || last != tc.last {
					t.Errorf("log runs from %d to %d, want %d to %d", first, last, tc.first, tc.last)
				}
				_, _, size := s.extent()
				return size
			}
			before := check(s)
			s.close()
			if after := check(reopen(t, path)); after != before {
				t.Errorf("%d bytes are counted after the restart, %d before", after, before)
			}
		})
	}
}

// A suffix that is replaced reads as the new one, although the old entries were in memory.
func TestStoreForgetsEntriesThatWereReplaced(t *testing.T) {
	s, _ := newStore(t)
	if err := errors.Join(s.StoreLogs(entries(1, 10)), s.DeleteRange(6, 10)); err != nil {
		t.Fatal(err)
	}
	if err := s.GetLog(7, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("deleted entry: %v", err)
	}
	if err := s.StoreLog(&raft.Log{Index: 6, Term: 99, Data: []byte("new")}); err != nil {
		t.Fatal(err)
	}
	var l raft.Log
	if err := s.GetLog(6, &l); err != nil || l.Term != 99 {
		t.Errorf("replaced entry: %+v, %v", l, err)
	}
}

func TestStoreRefusesAGap(t *testing.T) {
	s, _ := newStore(t)
	if err := s.StoreLogs(entries(1, 3)); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLogs(entries(5, 5)); err == nil {
		t.Error("entry 5 was stored after entry 3")
	}
}

// The commit index reaches the disk with entries only, and never points behind them.
func TestStoreKeepsTheCommitIndexWithTheEntries(t *testing.T) {
	s, path := newStore(t)
	step := func(want uint64) {
		t.Helper()
		if got, err := s.commitIndex(); err != nil || got != want {
			t.Errorf("commit index %d, %v; want %d", got, err, want)
		}
	}
	step(0)
	s.stageCommit(3)
	step(0)
	s.StoreLogs(entries(1, 5))
	step(3)
	s.stageCommit(100)
	s.StoreLogs(entries(6, 7))
	step(7)
	s.close()
	s = reopen(t, path)
	step(7)
	s.DeleteRange(5, 7)
	step(4)
}

func TestStableStoreSpeaksRaftsLanguage(t *testing.T) {
	s, path := newStore(t)
	if _, err := s.Get([]byte("no")); err == nil || err.Error() != "not found" {
		t.Errorf("a missing key: %v, raft compares with %q", err, "not found")
	}
	if err := errors.Join(s.Set([]byte("LastVoteCand"), []byte("b")), s.SetUint64([]byte("CurrentTerm"), 7)); err != nil {
		t.Fatal(err)
	}
	s.close()
	s = reopen(t, path)
	v, err := s.Get([]byte("LastVoteCand"))
	n, err2 := s.GetUint64([]byte("CurrentTerm"))
	if string(v) != "b" || n != 7 || err != nil || err2 != nil {
		t.Errorf("got %q, %d, %v, %v", v, n, err, err2)
	}
	if _, err := s.GetUint64([]byte("LastVoteCand")); err == nil {
		t.Error("a text was read as a number")
	}
}

// After one failed write nothing is acknowledged again, even if the disk would take it. Only the term seems to be written: raft
// would end the process otherwise.
func TestStoreNeverAcknowledgesAfterAFailedWrite(t *testing.T) {
	s, path := newStore(t)
	if err := s.StoreLogs(entries(1, 3)); err != nil {
		t.Fatal(err)
	}
	eio := errors.New("fdatasync: input/output error")
	works := s.commit
	s.commit = func(func(*bolt.Tx) error) error { return eio }
	err := s.StoreLogs(entries(4, 4))
	if !errors.Is(err, ErrDisk) || !errors.Is(err, eio) {
		t.Errorf("failed write: %v", err)
	}
	s.commit = works
	for what, err := range map[string]error{
		"store": s.StoreLogs(entries(4, 4)), "delete": s.DeleteRange(1, 1),
		"vote": s.Set([]byte("LastVoteCand"), []byte("b")), "vote's term": s.SetUint64([]byte("LastVoteTerm"), 2),
	} {
		if !errors.Is(err, ErrDisk) {
			t.Errorf("%s after a failed write: %v", what, err)
		}
	}
	if err := s.SetUint64([]byte("CurrentTerm"), 2); err != nil {
		t.Errorf("term: %v", err)
	}
	if err := s.disk.state.Get(); !errors.Is(err, eio) {
		t.Errorf("published: %v", err)
	}
	if first, last := extentOf(t, s); first != 1 || last != 3 {
		t.Errorf("log runs from %d to %d, want 1 to 3", first, last)
	}
	s.close()
	if _, last := extentOf(t, reopen(t, path)); last != 3 {
		t.Errorf("on the disk the log ends at %d, want 3", last)
	}
}

// A process is killed while it writes. What it had acknowledged is there, in order, and the log has no gap.
func TestStoreSurvivesAKill(t *testing.T) {
	if path := os.Getenv("SKEIN_TEST_STORE"); path != "" {
		s, err := openStore(path, &disk{})
		if err != nil {
			t.Fatal(err)
		}
		for i := uint64(1); ; i += 3 {
			if err := s.StoreLogs(entries(i, i+2)); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(os.Stderr, "stored %d\n", i+2)
			if i%30 == 28 {
				s.DeleteRange(1, i-20)
			}
		}
	}
	path := filepath.Join(t.TempDir(), fileStore)
	cmd := exec.Command(os.Args[0], "-test.run=^TestStoreSurvivesAKill$", "-test.count=1")
	cmd.Env = append(os.Environ(), "SKEIN_TEST_STORE="+path)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acked uint64
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if n, ok := strings.CutPrefix(lines.Text(), "stored "); ok {
			acked, _ = strconv.ParseUint(n, 10, 64)
		}
		if acked == 150 {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	if acked < 150 {
		t.Fatalf("the writer ended after %d entries", acked)
	}
	s := reopen(t, path)
	if first, last := extentOf(t, s); last < acked || first > last {
		t.Errorf("the log runs from %d to %d, %d were acknowledged", first, last, acked)
	}
}

func lengthOf(t *testing.T, file []byte) int64 {
	t.Helper()
	p, err := openPages(bytes.NewReader(file))
	if err != nil || p.length() > int64(len(file)) || p.length() < 4*4096 {
		t.Fatalf("pages %+v of %d bytes, %v", p, len(file), err)
	}
	return p.length()
}

// A database that was cut off is refused before bbolt maps it, wherever it was cut.
func TestTruncatedDatabaseIsRefused(t *testing.T) {
	s, path := newStore(t)
	if err := s.StoreLogs(entries(1, 500)); err != nil {
		t.Fatal(err)
	}
	s.close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	need := lengthOf(t, whole)
	for _, size := range []int64{1, 100, 4096, 8192, need / 2, need - 4096, need - 1} {
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkDatabase(path); err == nil {
			t.Errorf("cut to %d bytes of %d: not noticed", size, need)
		}
	}
}

// Bytes flip anywhere in the file. Opening it and reading all of it either gives an error or all that was written; nothing crashes.
func TestDamagedDatabaseIsRefusedOrWhole(t *testing.T) {
	s, path := newStore(t)
	if err := errors.Join(s.StoreLogs(entries(1, 300)), s.Set([]byte("LastVoteCand"), []byte("candidate"))); err != nil {
		t.Fatal(err)
	}
	s.close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	need := lengthOf(t, whole)
	refused := 0
	for at := int64(0); at < need; at += 97 {
		b := bytes.Clone(whole)
		b[at] ^= 0x55
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		err := checkDatabase(path)
		if err == nil {
			s, err := openStore(path, &disk{})
			if err != nil {
				t.Fatalf("byte %d: it passed as sound and could not be opened: %v", at, err)
			}
			if first, last := extentOf(t, s); first != 1 || last != 300 {
				t.Errorf("byte %d: the log runs from %d to %d and nothing was noticed", at, first, last)
			}
			if v, err := s.Get([]byte("LastVoteCand")); err != nil || string(v) != "candidate" {
				t.Errorf("byte %d: the vote was for %q, %v", at, v, err)
			}
			s.close()
		} else {
			refused++
		}
	}
	if refused == 0 {
		t.Error("no damage was noticed at all")
	}
	t.Logf("%d of %d damaged files were refused, the others were whole", refused, need/97+1)
}

// Whatever a file holds, reading it ends with an error or without, and soon.
func FuzzCheckFile(f *testing.F) {
	path := filepath.Join(f.TempDir(), fileStore)
	s, err := openStore(path, &disk{})
	if err != nil {
		f.Fatal(err)
	}
	s.StoreLogs(entries(1, 100))
	s.close()
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole, uint(8200), []byte("\xff"))
	f.Add(whole, uint(0), []byte(nil))
	f.Add([]byte("short"), uint(0), []byte(nil))
	f.Fuzz(func(t *testing.T, file []byte, at uint, patch []byte) {
		if int64(at) < int64(len(file)) {
			copy(file[at:], patch)
		}
		_ = checkFile(bytes.NewReader(file), int64(len(file)))
	})
}

func TestStoreOfAnotherFormatIsRefused(t *testing.T) {
	s, path := newStore(t)
	s.db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketStable).Put(keyFormat, encodeValue(keyFormat, binary.BigEndian.AppendUint64(nil, 99)))
	})
	s.close()
	if _, err := openStore(path, &disk{}); !errors.Is(err, errFormat) {
		t.Errorf("got %v", err)
	}
}
