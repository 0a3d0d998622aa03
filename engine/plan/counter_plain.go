//go:build !race && (amd64 || arm64 || loong64 || ppc64 || ppc64le || riscv64 || s390x)

package plan

import "sync/atomic"

// Add adds n. Only the counter's loop may call it.
func (c *Counter) Add(n uint64) { c.n += n }

// Load returns what has been counted. Any goroutine may call it.
func (c *Counter) Load() uint64 { return atomic.LoadUint64(&c.n) }
