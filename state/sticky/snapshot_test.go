package sticky

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// A snapshot is persisted while everything in it is refreshed, moved, evicted and overwritten.
func TestASnapshotShowsOneMoment(t *testing.T) {
	const n = 20000
	a := tables(t, shop(n))
	r := rand.New(rand.NewPCG(3, 3))
	churn := func() {
		for range 3000 {
			a.Learn(ID("shop"), key(r.Uint64N(2*n)), 1+r.Uint64N(9), time.Minute)
		}
		advance(second/2, a)
		commit(t, a, a)
	}
	for range 20 {
		churn()
	}
	for range 5 {
		want := dump(t, a)
		f := a.Freeze()
		var wg sync.WaitGroup
		var got bytes.Buffer
		started := make(chan struct{})
		wg.Go(func() {
			close(started)
			if err := f.Write(&got); err != nil {
				t.Error(err)
			}
		})
		<-started
		for range 10 {
			churn()
		}
		wg.Wait()
		f.Release()
		f.Release()
		if !bytes.Equal(got.Bytes(), want) {
			t.Fatal("what was written meanwhile shows in the snapshot")
		}
		if bytes.Equal(dump(t, a), want) {
			t.Fatal("nothing was written meanwhile")
		}
	}
	if a.snapshots.Load() != 0 {
		t.Errorf("%d snapshots are still held", a.snapshots.Load())
	}
}

func TestCorruptSnapshotsAreRefused(t *testing.T) {
	a := tables(t, shop(10))
	a.Learn(ID("shop"), key(1), 7, time.Minute)
	a.Learn(ID("shop"), key(2), 7, time.Minute)
	commit(t, a, a)
	good := dump(t, a)
	twice := bytes.Clone(good)
	copy(twice[len(twice)-32:], twice[len(twice)-64:len(twice)-32])
	for i := range good {
		if _, err := New().Load(bytes.NewReader(good[:i])); err == nil {
			t.Errorf("the first %d of %d bytes were taken for the whole", i, len(good))
		}
	}
	for name, b := range map[string][]byte{"longer": append(bytes.Clone(good), 0), "twice": twice} {
		if _, err := New().Load(bytes.NewReader(b)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want %v", name, err, ErrCorrupt)
		}
	}
}

func FuzzLoad(f *testing.F) {
	a := tables(f, shop(10))
	f.Add(dump(f, New()))
	a.Learn(ID("shop"), key(1), 7, time.Minute)
	commit(f, a, a)
	f.Add(dump(f, a))
	f.Fuzz(func(t *testing.T, b []byte) {
		x := New()
		l, err := x.Load(bytes.NewReader(b))
		if err != nil {
			return
		}
		x.Adopt(l, 0)
		if got := dump(t, x); !bytes.Equal(got, b) {
			t.Errorf("read %x and wrote %x", b, got)
		}
	})
}
