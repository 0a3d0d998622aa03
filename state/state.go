// Package state is the replicated state machine: what the cluster wants (configuration, admin state, placements, members, keys,
// sticky tables), as a function of a log of commands.
//
// It holds no Raft, no clock, no randomness and no I/O: package cluster feeds it, everybody else reads its View. It also holds the pure
// decisions that a leader makes about it (Placements, Voters).
// The one rule: the same commands at the same indexes make the same state, to the byte, on every node and in every version.
package state
