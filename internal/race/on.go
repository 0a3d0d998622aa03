//go:build race

package race

// Enabled says that the race detector watches: sync.Pool forgets at random then, so that allocations cannot be counted.
const Enabled = true
