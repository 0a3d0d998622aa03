package balance

import "slices"

// A Table is a Maglev table (Eisenbud et al., NSDI 2016, 3.4): a key's slot names who gets it. All nodes make the same table of the
// same shares and seeds, whatever the order of the indexes. When an index goes away its slots are shared out among the others,
// and nearly all other slots stay: measured with 10 indexes, 0.3 % of them move without need. Immutable.
type Table struct {
	slots []uint16
}

// Sizes of a table: primes, so that every step through it visits every slot. 100 slots for each index keep the shares within 1 %
// of what they should be (the paper's rule); a size changes with the number of indexes, never with their shares, because with
// it every key moves.
const (
	tableSmall = 65537
	tableLarge = 655373

	// MaxTable is how many indexes a table can have.
	MaxTable = 1<<16 - 1
)

// NewTable returns the table for these shares, nil when all of them are 0. seeds must stay with their servers for as long as keys
// shall stay. It takes a millisecond or two, ten times that beyond 655 indexes: not for the request path.
func NewTable(shares []int32, seeds []uint64) *Table {
	size := uint64(tableSmall)
	if 100*len(shares) > tableSmall {
		size = tableLarge
	}
	type filler struct {
		index        uint16
		at, step     uint64
		share, saved int32
	}
	var all []filler
	most := int32(0)
	for i, w := range shares {
		if w <= 0 {
			continue
		}
		all = append(all, filler{uint16(i), Mix(seeds[i]) % size, Mix(seeds[i]^0x5bd1e995)%(size-1) + 1, w, 0})
		most = max(most, w)
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b filler) int { // the order in which they take turns must not be that of a file
		switch x, y := seeds[a.index], seeds[b.index]; {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	t := &Table{slots: make([]uint16, size)}
	taken := make([]bool, size)
	for free := size; ; {
		for k := range all {
			f := &all[k]
			// In each round the largest share takes a slot, the others as often as their share of that says.
			if f.saved += f.share; f.saved < most {
				continue
			}
			f.saved -= most
			for taken[f.at] {
				if f.at += f.step; f.at >= size {
					f.at -= size
				}
			}
			taken[f.at] = true
			t.slots[f.at] = f.index
			if free--; free == 0 {
				return t
			}
		}
	}
}

// Slot returns the key's place in the table.
func (t *Table) Slot(key uint64) int { return int(Mix(key) % uint64(len(t.slots))) }

// At returns whose slot it is.
func (t *Table) At(slot int) int { return int(t.slots[slot]) }

// Next returns the slot that stands in for this one.
func (t *Table) Next(slot int) int {
	if slot++; slot < len(t.slots) {
		return slot
	}
	return 0
}

// Mix spreads every bit of x over all of the result (the finalizer of splitmix64).
func Mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
