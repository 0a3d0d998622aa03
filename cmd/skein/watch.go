package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/skeinlb/skein/api"
)

// watchEvery is how often a page that goes on is drawn anew.
const watchEvery = time.Second

// watch draws a page of the cluster's status until it is interrupted. An agent that goes away is said, in a pipe once, and waited for.
func (c *cli) watch(ctx context.Context, page func(*api.Status) view) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	said := ""
	for {
		ask, cancel := context.WithTimeout(ctx, 5*time.Second)
		s, err := c.node().Status(ask)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if c.outTTY {
			io.WriteString(c.out, "\x1b[H\x1b[2J")
		}
		switch {
		case err == nil:
			said = ""
			if err := c.show(page(s)); err != nil {
				return err
			}
			if !c.outTTY && !c.machine() {
				fmt.Fprintln(c.out)
			}
		case c.outTTY || err.Error() != said:
			said = err.Error()
			c.finish(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
