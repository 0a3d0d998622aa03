package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/stage"
)

// contender is somebody who keeps an address served by several hosts.
type contender interface {
	// boot starts everything and returns when the address is served.
	boot(context.Context) error
	// whole waits until nothing is missing: the next fault is the only one.
	whole(context.Context) error
	// balancers are the hosts that may hold the address, voters all that have a say in it.
	balancers() []*lab.Host
	voters() []*lab.Host

	// What can happen to it, and what ends it.
	proxy(*lab.Host) *lab.Process // the process that carries traffic
	loop(*lab.Host) (tid int, err error)
	start(context.Context, *lab.Host) error // whatever does not run
	stop(context.Context, *lab.Host) error  // in good order, as the service manager does; returns when the address has been let go
	move(context.Context, *lab.Host) error  // away from the host, as planned
	unmove(context.Context, *lab.Host) error
	// logs are the ends of its logs, for when something goes wrong.
	logs() string
}

// maker makes a contender on a stage, with a directory of its own.
type maker struct {
	name, title string
	make        func(o options, s *stage.Stage, dir string) (contender, error)
	version     func(o options) (version, error)
}

// version names what is under test, and the state of the source that it was built from, "" if it is none of ours.
type version struct{ Name, Commit string }

var makers = []maker{
	{"skein", "skein, three nodes", func(o options, s *stage.Stage, dir string) (contender, error) {
		return newSkein(o.binary, s, dir, "balancer", "balancer", "balancer")
	}, versionOfSkein},
	{"skein-witness", "skein, two nodes and a witness", func(o options, s *stage.Stage, dir string) (contender, error) {
		return newSkein(o.binary, s, dir, "balancer", "balancer", "witness")
	}, versionOfSkein},
	{"skein-tiebreak", "skein, two nodes, tie-break", func(o options, s *stage.Stage, dir string) (contender, error) {
		return newTiebreak(o.binary, s, dir)
	}, versionOfSkein},
	{"keepalived", "keepalived + haproxy, defaults", func(_ options, s *stage.Stage, dir string) (contender, error) {
		return newPair(s, dir, usual)
	}, versionOfPair},
	{"keepalived-tuned", "keepalived + haproxy, 0.1 s", func(_ options, s *stage.Stage, dir string) (contender, error) {
		return newPair(s, dir, tuned)
	}, versionOfPair},
}

func makerOf(name string) (maker, error) {
	for _, m := range makers {
		if m.name == name {
			return m, nil
		}
	}
	return maker{}, fmt.Errorf("no contender %q", name)
}

// venue is a stage with a contender on it.
type venue struct {
	*stage.Stage
	contender
	dir      string
	commit   string
	keep     bool
	thaw     func() error // of what is frozen
	overload time.Duration
}

// open builds a venue that is ready for the first run.
func open(ctx context.Context, o options, m maker) (_ *venue, err error) {
	version, err := m.version(o)
	if err != nil {
		return nil, err
	}
	v := &venue{keep: o.keep, commit: version.Commit, overload: o.overload}
	if v.dir, err = os.MkdirTemp("", "skein-lab-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			v.Close()
		}
	}()
	if v.Stage, err = stage.New(slog.New(slog.DiscardHandler)); err != nil {
		return nil, err
	}
	v.WatchDisk(filepath.Join(v.dir, "sync"))
	if v.contender, err = m.make(o, v.Stage, v.dir); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, bootPatience)
	defer cancel()
	if err := v.boot(ctx); err != nil {
		return nil, fmt.Errorf("boot %s: %w\n%s", m.name, err, v.logs())
	}
	begin := time.Now()
	v.Open()
	if _, err := v.Fresh.Record.Settled(ctx, begin, time.Second); err != nil {
		return nil, fmt.Errorf("boot %s: wait until the client is served: %w\n%s", m.name, err, v.logs())
	}
	return v, nil
}

// Close takes the venue down.
func (v *venue) Close() error {
	var err error
	if v.Stage != nil {
		err = v.Stage.Close()
	}
	if v.keep {
		fmt.Fprintf(os.Stderr, "data and logs: %s\n", v.dir)
		return err
	}
	os.RemoveAll(v.dir)
	return err
}
