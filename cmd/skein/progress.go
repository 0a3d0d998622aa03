package main

import (
	"fmt"
	"sync"
	"time"
)

// progressAfter is how long a human waits before wanting to know for what.
const progressAfter = time.Second

// progress says on standard error what is waited for, once it takes longer than a second, and takes it back when it is over. A
// program that reads along sees nothing of it.
type progress struct {
	stopOnce sync.Once
	quit     chan struct{}
	done     chan struct{}
}

// progress begins to wait for what. The caller stops it before anything else is printed.
func (c *cli) progress(what string) *progress {
	p := &progress{quit: make(chan struct{}), done: make(chan struct{})}
	if !c.errTTY {
		close(p.done)
		return p
	}
	go func() { // ends with stop
		defer close(p.done)
		t := time.NewTimer(progressAfter)
		defer t.Stop()
		select {
		case <-t.C:
			fmt.Fprintf(c.errOut, "%s ...", what)
			<-p.quit
			fmt.Fprint(c.errOut, "\r\x1b[K")
		case <-p.quit:
		}
	}()
	return p
}

// stop may be called more than once.
func (p *progress) stop() {
	p.stopOnce.Do(func() { close(p.quit) })
	<-p.done
}
