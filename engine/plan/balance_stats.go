package plan

import "sync/atomic"

// BalanceStats counts what happens to a backend's picks, for all loops together: these things are rare, and none of them is on the
// way of a request that meets no trouble. Its zero value is ready.
type BalanceStats struct {
	Panicked     atomic.Uint64 // clients that were balanced while health was ignored
	Queued       atomic.Uint64 // clients that had to wait for a place
	Redispatched atomic.Uint64 // clients that could not have the server to which they belong, because it was full
	Repeated     atomic.Uint64 // requests that were sent a second time, to another server
	OverBudget   atomic.Uint64 // requests that were not, because the budget was spent
	Ejected      atomic.Uint64 // servers, by traffic
}

// BalanceTotals is a copy of BalanceStats.
type BalanceTotals struct {
	Panicked, Queued, Redispatched, Repeated, OverBudget, Ejected uint64
}

// Totals copies what was counted.
func (s *BalanceStats) Totals() BalanceTotals {
	return BalanceTotals{
		s.Panicked.Load(), s.Queued.Load(), s.Redispatched.Load(), s.Repeated.Load(), s.OverBudget.Load(), s.Ejected.Load(),
	}
}
