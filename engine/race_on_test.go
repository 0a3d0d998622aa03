//go:build race

package engine_test

// underRace says that sync.Pool forgets at random, so that allocations cannot be counted.
const underRace = true
