package plan

// A Counter has one writer, a loop, and any number of readers. In the place of a locked addition, which costs as much as parsing a
// header field, the loop adds as it would to any number of its own; on the machines of counter_plain.go a word is written as one, so
// that a reader sees what it was or what it is. Its zero value is ready; it must not be copied.
type Counter struct{ n uint64 }

// Inc adds one. Only the counter's loop may call it.
func (c *Counter) Inc() { c.Add(1) }

// A Gauge is a Counter that goes up and down.
type Gauge struct{ c Counter }

// Add changes the gauge by n. Only its loop may call it.
func (g *Gauge) Add(n int64) { g.c.Add(uint64(n)) }

// Load returns the gauge's value. Any goroutine may call it.
func (g *Gauge) Load() int64 { return int64(g.c.Load()) }
