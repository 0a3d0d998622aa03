package balance

import (
	"math"
	"slices"
	"testing"
)

func named(n int) (shares []int32, seeds []uint64) {
	for i := range n {
		shares = append(shares, 1)
		seeds = append(seeds, Mix(uint64(i)*7919+11))
	}
	return shares, seeds
}

// spread counts the slots of every index.
func spread(t *Table, n int) []int {
	count := make([]int, n)
	for slot := range t.slots {
		count[t.At(slot)]++
	}
	return count
}

// needless is the part of the slots that moved although the index that they belonged to stayed and could have kept them.
func needless(before, after *Table, left int) float64 {
	n := 0
	for slot := range before.slots {
		if before.At(slot) != left && before.At(slot) != after.At(slot) {
			n++
		}
	}
	return float64(n) / float64(len(before.slots))
}

func TestTableIsEvenAndStays(t *testing.T) {
	for _, c := range []struct {
		name   string
		weight func(i int) int32
		n      int
		moves  float64 // at most
	}{
		{"10 equal", func(int) int32 { return 1 }, 10, 0.01},
		{"10 from 1 to 10", func(i int) int32 { return int32(i + 1) }, 10, 0.01},
		{"10, one heavy", func(i int) int32 { return []int32{1, 20}[min(1, i/9)] }, 10, 0.01},
		{"3 equal", func(int) int32 { return 1 }, 3, 0.01},
		{"100 equal", func(int) int32 { return 1 }, 100, 0.02},
	} {
		shares, seeds := named(c.n)
		total := int32(0)
		for i := range shares {
			shares[i] = c.weight(i)
			total += shares[i]
		}
		table := NewTable(shares, seeds)
		worst := 0.0
		for i, n := range spread(table, c.n) {
			fair := float64(len(table.slots)) * float64(shares[i]) / float64(total)
			worst = max(worst, math.Abs(float64(n)/fair-1))
		}
		if worst > 0.02 {
			t.Errorf("%s: somebody is %.2f %% off its share", c.name, 100*worst)
		}
		most := 0.0
		for left := 0; left < len(shares); left += max(1, len(shares)/10) {
			was := shares[left]
			shares[left] = 0
			after := NewTable(shares, seeds)
			most = max(most, needless(table, after, left))
			if spread(after, c.n)[left] != 0 {
				t.Fatalf("%s: %d has left and still has slots", c.name, left)
			}
			shares[left] = was
		}
		t.Logf("%s: at most %.2f %% off the share, %.2f %% needless moves", c.name, 100*worst, 100*most)
		if most > c.moves {
			t.Errorf("%s: %.2f %% of the slots moved without need, want at most %.0f %%", c.name, 100*most, 100*c.moves)
		}
	}
}

// Keys, not slots, are what an operator counts.
func TestKeysAreSpreadOverTenServers(t *testing.T) {
	shares, seeds := named(10)
	table := NewTable(shares, seeds)
	var count [10]int
	const keys = 1_000_000
	for key := range uint64(keys) {
		count[table.At(table.Slot(key))]++
	}
	if worst := float64(slices.Max(count[:])) / (keys / 10); worst > 1.02 {
		t.Errorf("the busiest has %.4f of the average: %v", worst, count)
	}
}

func TestTableDoesNotDependOnTheOrderOfServers(t *testing.T) {
	shares, seeds := []int32{3, 1, 2, 2}, []uint64{40, 10, 30, 20}
	table := NewTable(shares, seeds)
	slices.Reverse(shares)
	slices.Reverse(seeds)
	reversed := NewTable(shares, seeds)
	for slot := range table.slots {
		if table.At(slot) != 3-reversed.At(slot) {
			t.Fatalf("slot %d is %d's, and in reverse order %d's", slot, table.At(slot), 3-reversed.At(slot))
		}
	}
}

func TestTableOfNobodyAndOfMany(t *testing.T) {
	if NewTable([]int32{0, 0}, []uint64{1, 2}) != nil {
		t.Error("a table of nobody")
	}
	shares, seeds := named(700)
	if table := NewTable(shares, seeds); len(table.slots) != tableLarge || slices.Min(spread(table, 700)) < 900 {
		t.Errorf("700 indexes: %d slots, the least has %d", len(table.slots), slices.Min(spread(table, 700)))
	}
	last := NewTable([]int32{1}, []uint64{5})
	if n := len(last.slots); last.Next(n-1) != 0 || last.Next(0) != 1 {
		t.Error("the slots are not a ring")
	}
}
