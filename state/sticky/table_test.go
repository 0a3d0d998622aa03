package sticky

import (
	"testing"
	"time"
)

func TestAFullTableLosesItsOldest(t *testing.T) {
	a := tables(t, shop(3))
	for n := uint64(1); n <= 3; n++ {
		a.Learn(ID("shop"), key(n), n, time.Minute)
		commit(t, a, a)
		advance(15*second, a)
	}
	wantServer(t, a, "", 1, 1) // 45 s old: asks for a refresh
	commit(t, a, a)
	a.Learn(ID("shop"), key(4), 4, time.Minute)
	commit(t, a, a)
	for n, want := range map[uint64]uint64{1: 1, 2: 0, 3: 3, 4: 4} {
		wantServer(t, a, "after the fourth", n, want)
	}
	if s := a.Stats()[0]; s.Evicted != 1 || s.Entries != 3 {
		t.Errorf("evicted %d, entries %d; want 1, 3", s.Evicted, s.Entries)
	}
}

func TestATableThatShrinksLosesItsOldestLittleByLittle(t *testing.T) {
	a := tables(t, shop(100))
	for n := uint64(1); n <= 100; n++ {
		a.Learn(ID("shop"), key(n), n, time.Minute)
	}
	commit(t, a, a)
	if err := a.Configure([]Spec{shop(10)}); err != nil {
		t.Fatal(err)
	}
	if n := a.Stats()[0].Entries; n != 100 {
		t.Errorf("%d entries right after the change, want all 100", n)
	}
	a.Learn(ID("shop"), key(101), 101, time.Minute)
	commit(t, a, a)
	if n := a.Stats()[0].Entries; n != 99 {
		t.Errorf("%d entries after one more, want 99", n)
	}
	advance(1, a)
	if n := a.Stats()[0].Entries; n != 10 {
		t.Errorf("%d entries after a tick, want 10", n)
	}
	wantServer(t, a, "the newest", 101, 101)
}

func TestATableThatIsGoneForgetsWhatItHad(t *testing.T) {
	other := Spec{ID: ID("db"), Name: "db", TTL: time.Minute, Size: 10}
	a := tables(t, shop(10), other)
	a.Learn(ID("shop"), key(1), 1, time.Minute)
	commit(t, a, a)
	a.Learn(ID("shop"), key(2), 2, time.Minute)
	a.Learn(other.ID, key(2), 2, time.Minute)
	late, _ := a.Drain(1)
	if err := a.Configure([]Spec{other}); err != nil {
		t.Fatal(err)
	}
	wantServer(t, a, "gone", 1, 0)
	a.Learn(ID("shop"), key(3), 3, time.Minute)
	if _, err := a.Apply(late, 0); err != nil {
		t.Errorf("a batch for a table that is gone: %v", err)
	}
	for {
		if _, n := a.Drain(10); n == 0 {
			break
		}
	}
	if a.Pending() != 0 {
		t.Errorf("%d wait for ever", a.Pending())
	}
	if err := a.Configure([]Spec{shop(10), other}); err != nil {
		t.Fatal(err)
	}
	wantServer(t, a, "a new table of the same name", 1, 0)
}

func TestConfigureRefusesWhatMakesNoSenseAndChangesNothing(t *testing.T) {
	for name, specs := range map[string][]Spec{
		"no size":  {shop(0)},
		"no ttl":   {{ID: 1, Name: "x", Size: 1}},
		"size":     {shop(MaxSize + 1)},
		"twice":    {shop(1), shop(2)},
		"ttl":      {{ID: 1, Name: "x", Size: 1, TTL: MaxTTL + 1}},
		"negative": {{ID: 1, Name: "x", Size: -1, TTL: -1}},
	} {
		a := tables(t, shop(10))
		if err := a.Configure(specs); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if got := a.Specs(); len(got) != 1 || got[0] != shop(10) {
			t.Errorf("%s: specs are now %v", name, got)
		}
	}
}
