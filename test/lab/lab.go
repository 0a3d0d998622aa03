// Package lab holds the tests that play out failures on a whole cluster: real nodes by the real binary, on hosts that are network
// namespaces, with clients that note every request and a watcher that asks the wire who holds the address.
//
// It measures; what a failure should cost is said here and nowhere else. The one rule: a test believes the wire and the client,
// never what skein says of itself.
package lab
