package vip

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// errUnanswered is a commit of which nobody knows whether the kernel has made it.
var errUnanswered = errors.New("the kernel did not answer in time")

// openRules returns a connection to nftables no call of which takes longer than most. By themselves they may take for ever: the library
// waits for one answer to each message of a batch, but what the kernel can't begin with at all (no memory for a copy of it, no nftables in
// this kernel) has one answer, and an answer for which there is no memory is none.
//
// Each call has a socket of its own, so that nothing is ever taken for the answer to a later one. It is opened in the network namespace of
// the calling thread. The options are for the socket, as tests want it.
func openRules(most time.Duration, more ...nftables.SockOption) (*nftables.Conn, error) {
	limit := func(c *netlink.Conn) error { return c.SetDeadline(time.Now().Add(most)) }
	c, err := nftables.New(nftables.WithSockOptions(append([]nftables.SockOption{limit}, more...)...))
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return c, nil
}

// commit sends what was gathered in c, which the kernel does as a whole or not at all. errUnanswered: one of the two.
func commit(c *nftables.Conn) error {
	err := c.Flush()
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if said := answered(err); said != nil {
		return fmt.Errorf("%w, but for: %w", errUnanswered, said)
	}
	return errUnanswered
}

// answered is the first of the errors joined in err that is no missing answer.
func answered(err error) error {
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			if said := answered(err); said != nil {
				return said
			}
		}
		return nil
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			return answered(inner)
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}
