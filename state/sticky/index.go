package sticky

// index finds entries by hash: open addressing, linear probing, at most three quarters full. It has no pointers in it, so that
// the garbage collector does not look at it.
type index struct {
	slots []slot // a power of two, or nil
	count int
}

type slot struct{ hash, pos uint32 }

// start returns where the search for h begins; negative when there is nothing to search.
func (x *index) start(h uint64) int {
	if len(x.slots) == 0 {
		return -1
	}
	return int(uint32(h)) & (len(x.slots) - 1)
}

func (x *index) after(i int) int { return (i + 1) & (len(x.slots) - 1) }

func (x *index) add(t *table, pos uint32, h uint64) {
	if 4*(x.count+1) > 3*len(x.slots) {
		x.grow()
	}
	x.place(slot{hash: uint32(h), pos: pos})
	x.count++
}

func (x *index) place(s slot) {
	i := int(s.hash) & (len(x.slots) - 1)
	for x.slots[i].pos != none {
		i = x.after(i)
	}
	x.slots[i] = s
}

func (x *index) grow() {
	old := x.slots
	x.slots = make([]slot, max(16, 2*len(old)))
	for i := range x.slots {
		x.slots[i].pos = none
	}
	for _, s := range old {
		if s.pos != none {
			x.place(s)
		}
	}
}

// remove takes pos out and moves back what was pushed past it, so that no marks of the deleted stay (Knuth, 6.4 algorithm R).
func (x *index) remove(t *table, pos uint32, h uint64) {
	i := x.start(h)
	for x.slots[i].pos != pos {
		i = x.after(i)
	}
	mask := len(x.slots) - 1
	for j := x.after(i); x.slots[j].pos != none; j = x.after(j) {
		if home := int(x.slots[j].hash) & mask; (j-home)&mask >= (j-i)&mask {
			x.slots[i] = x.slots[j]
			i = j
		}
	}
	x.slots[i].pos = none
	x.count--
}
