package cluster

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/skeinlb/skein/internal/watch"
	"github.com/skeinlb/skein/state"
)

// Outdated tells what a newer version has written into this node's log or snapshot that the machine does not understand: nil, or the
// error. From then on nothing more is applied, acknowledged or proposed here, and what is stored stays as it is, for the newer version.
func (c *Cluster) Outdated() *watch.Value[error] { return &c.outdated }

// watchOutdated takes a node that cannot apply its log out of it. Everything else goes on, so that it can say why and be upgraded.
func (c *Cluster) watchOutdated(ctx context.Context) {
	err, werr := c.outdated.Wait(ctx, func(err error) bool { return err != nil })
	if werr != nil {
		return
	}
	c.log.Error("this version is too old for the log: nothing more is applied, and nothing is lost; install a newer one and restart", "err", err)
	if c.leadership.Get().Self {
		c.callElection()
	}
	c.raft.Shutdown() // Run waits for it
}

// withdrawn says why this node takes no part in the log any more, nil while it does.
func (c *Cluster) withdrawn() error {
	if err := c.disk.refused(); err != nil {
		return err
	}
	return c.outdated.Get()
}

// allows refuses a command that some member may not know, and says which member that is.
func (c *Cluster) allows(cmd []byte) error {
	err := c.view().Allows(cmd)
	if early := (*state.TooEarly)(nil); errors.As(err, &early) {
		if why := c.opt.Behind(early.Need); why != "" {
			return fmt.Errorf("%w: %s", err, why)
		}
	}
	return err
}

// applied is what the machine made of a command that raft brought.
func applied(f raft.ApplyFuture) (answer, error) {
	switch said := f.Response().(type) {
	case []byte:
		return answer{said, f.Index()}, nil
	case error:
		return answer{}, fmt.Errorf("%w (%w)", ErrUnknownOutcome, said)
	}
	return answer{}, fmt.Errorf("%w: the machine gave no answer", ErrUnknownOutcome)
}
