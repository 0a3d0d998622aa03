// Package chaos breaks a running cluster at random, from a seed, for as long as it is told to, while clients use it and an operator changes
// its configuration.
//
// It measures nothing but what must hold: never two holders, service back within a bound, no acknowledged configuration lost. The one rule:
// what happens is written down before it does, so that the log of a run that failed says why. test/lab plays faults one by one, and
// measures them.
package chaos
