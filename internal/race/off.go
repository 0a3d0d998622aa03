//go:build !race

// Package race tells tests whether the race detector watches them. It is not for what is shipped. The one rule: it decides what can be
// measured, never what is right.
package race

// Enabled is false: nothing watches.
const Enabled = false
