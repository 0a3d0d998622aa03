package proxy

import "github.com/skeinlb/skein/engine/loop"

// Many servers send the head of a response and its body one after the other, a few microseconds apart, and a loop that is quick
// sees the head alone. Passed on at once, it costs a segment and a wake-up of the client more than head and body together do
// (a sixth of what a small response costs). So the head of a response with a body to follow is given to the kernel with the remark
// that there is more to come, and a body that does not come is not waited for: after holdTime at most, what is held is sent.

// holdTime bounds how long a response's head waits for its body; the wheel adds a tick.
const holdTime = 4e6 // ns

// holding is the clients of a loop for whom something may be held back.
type holding struct {
	w     *Worker
	timer loop.Timer
	list  []turn
}

// hold notes that c's last bytes may be waiting for more.
func (w *Worker) hold(c *client) {
	if !c.held || c.state != clientBusy || c.onHold {
		return
	}
	c.onHold = true
	h := &w.holding
	if len(h.list) == 0 {
		w.loop.SetTimer(&h.timer, w.loop.Now()+holdTime)
	}
	h.list = append(h.list, turn{c, c.serial})
}

// Expired sends what is still held. A client that was noted and has been served since costs nothing.
func (h *holding) Expired() {
	for i, t := range h.list {
		h.list[i] = turn{}
		if t.c.serial != t.serial {
			continue
		}
		t.c.onHold = false
		if t.c.held {
			t.c.push()
		}
	}
	h.list = h.list[:0]
}

// push sends what is held back.
func (c *conn) push() {
	c.held = false
	loop.Push(c.fd)
}
