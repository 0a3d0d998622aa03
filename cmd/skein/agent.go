package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/internal/node"
)

// defaultNodeFile is where scripts/install puts a host's own file.
const defaultNodeFile = "/etc/skein/node.hcl"

// guardWait is how long an agent under a service manager waits for the guard, which is a unit of its own there and is started again
// when the last agent has ended it. A guard that the agent started instead would live in the agent's unit, without its real time.
const guardWait = 3 * time.Second

// agentCommand is `skein agent`: a node of a cluster.
func (c *cli) agentCommand() *cobra.Command {
	var file string
	var drain time.Duration
	var verbose bool
	cmd := &cobra.Command{
		Use:     "agent",
		GroupID: groupNode,
		Short:   "Run this host's node of the cluster",
		Long: `Run this host's node of the cluster, in the foreground. The host belongs to a cluster after
"skein cluster init" or "skein cluster join". The guard, which holds the virtual addresses, is found or started.

SIGTERM gives addresses and leadership away, lets what is under way finish, and ends. "skein node upgrade" has another
process follow this one without any of that, on the same sockets. SIGUSR1 and SIGHUP open the
access log's file anew, after it was moved away.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkDrain(drain); err != nil {
				return err
			}
			inherited, err := node.Inherit()
			if err != nil {
				return failf("", "%v", err)
			}
			conf, err := c.nodeFile(file)
			if err != nil {
				inherited.Refuse(err)
				return err
			}
			if inherited != nil {
				if err := inherited.Take(version().Version); err != nil {
					return failf("", "%v", err)
				}
			}
			calmGC(cmd.Context())
			var wait time.Duration
			if c.env("NOTIFY_SOCKET") != "" {
				wait = guardWait
			}
			log := c.logger(verbose)
			n, err := node.Open(node.Options{
				Config: conf, Version: version().Version, Log: log, GuardWait: wait,
				Program: node.ProgramPath(os.Args[0]), Inherited: inherited, Serving: func() {
					if err := notifyFollows(); err != nil {
						log.Error("the service manager does not know which process to watch now", "err", err)
					}
				},
			})
			if errors.Is(err, node.ErrNoCluster) {
				return failf("found a cluster with `skein cluster init`, or join one with `skein cluster join ADDRESS --token TOKEN`",
					"this host belongs to no cluster yet (%s has no identity)", conf.DataDir)
			}
			if err != nil {
				inherited.Refuse(err)
				return failed(err)
			}
			if inherited == nil {
				if err := notifyReady(); err != nil {
					return err
				}
			}
			defer onSignal(func(os.Signal) { n.ReopenLog() }, syscall.SIGUSR1, syscall.SIGHUP)()
			return n.Run(cmd.Context(), drain)
		},
	}
	nodeFileFlag(cmd, &file)
	cmd.Flags().DurationVar(&drain, "drain", 30*time.Second, "how long what is under way may take after SIGTERM")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log debugging details too")
	return cmd
}

// guardCommand is `skein guard`: started by the agent or by the service manager, hardly ever by hand.
func (c *cli) guardCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "guard",
		Short:  "Hold virtual addresses for the agent of this host",
		Hidden: true,
		Long: `Hold virtual addresses for the agent of this host: one small process per network namespace, which an agent
finds by itself. It needs no configuration. SIGTERM releases everything that it holds.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return node.RunGuard(cmd.Context(), c.logger(false), version().Version)
		},
	}
}

func nodeFileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", defaultNodeFile, "this host's own file")
}

// nodeFile reads a node.hcl and prints what is wrong with it.
func (c *cli) nodeFile(path string) (*config.Node, error) {
	text, err := node.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, failf(fmt.Sprintf("write it (name, data_dir, advertise), or name another one with --config; scripts/install writes %s",
			defaultNodeFile), "there is no %s", path)
	}
	if err != nil {
		return nil, failed(fmt.Errorf("read this host's own file: %w", err))
	}
	conf, diags := config.ParseNode(path, text)
	c.printFound(diags)
	if diags.HasErrors() {
		return nil, failf("", "%s has mistakes", path)
	}
	return conf, nil
}

// clusterInitCommand is `skein cluster init`.
func (c *cli) clusterInitCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Found a cluster with this host as its first node",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf, err := c.nodeFile(file)
			if err != nil {
				return err
			}
			id, err := node.Found(conf)
			if err != nil {
				return notMember(err)
			}
			fmt.Fprintf(c.out, "Cluster %s is founded; %s is its first node.\n\n", id, conf.Name)
			fmt.Fprintf(c.out, "Next:\n  start it here           systemctl enable --now skein   (or: skein agent --config %s)\n", file)
			fmt.Fprintf(c.out, "  bring the next host in  skein cluster token            (prints what to type there)\n")
			return nil
		},
	}
	nodeFileFlag(cmd, &file)
	return cmd
}

// notMember is why a host has not become a member, with what to do about it where the error does not say that itself.
func notMember(err error) error {
	var (
		unreached *net.OpError
		unknown   *net.DNSError
	)
	switch {
	case errors.Is(err, node.ErrMember):
		return failf("start it: systemctl start skein; to leave that cluster, remove this node there, stop its agent, and move that directory away", "%v", err)
	case errors.Is(err, node.ErrPin):
		return failf("name a member of the cluster that the token is of, or get one of this cluster: skein cluster token", "%v", err)
	case errors.As(err, &unknown), errors.As(err, &unreached), errors.Is(err, context.DeadlineExceeded):
		return failf("does the agent of a member run there, and is its port (7940/tcp as a rule) open to this host? `skein cluster token` prints its address", "%v", err)
	}
	return failed(err)
}

// clusterJoinCommand is `skein cluster join`.
func (c *cli) clusterJoinCommand() *cobra.Command {
	var file, token string
	cmd := &cobra.Command{
		Use:   "join ADDRESS --token TOKEN",
		Short: "Make this host a node of the cluster at ADDRESS",
		Args:  args("ADDRESS"),
		RunE: func(cmd *cobra.Command, a []string) error {
			if token == "" {
				return usagef("any node prints one: skein cluster token", "`skein cluster join` needs --token")
			}
			conf, err := c.nodeFile(file)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
			defer cancel()
			fmt.Fprintf(c.errOut, "joining at %s ...\n", a[0])
			id, err := node.Join(ctx, conf, a[0], token)
			if err != nil {
				return notMember(err)
			}
			fmt.Fprintf(c.out, "%s is a node of cluster %s.\n\nNext:\n  start it here  systemctl enable --now skein   (or: skein agent --config %s)\n",
				conf.Name, id, file)
			return nil
		},
	}
	nodeFileFlag(cmd, &file)
	cmd.Flags().StringVar(&token, "token", "", "what \"skein cluster token\" printed on a node of the cluster")
	return cmd
}
