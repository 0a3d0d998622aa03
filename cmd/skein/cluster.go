package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/api"
)

func (c *cli) clusterCommand() *cobra.Command {
	noun := &cobra.Command{Use: "cluster", Short: "Found, join, extend and recover a cluster", GroupID: groupNode}
	noun.AddCommand(c.clusterInitCommand(), c.tokenCommand(), c.clusterJoinCommand(), c.clusterUpgradeCommand(), c.clusterRecoverCommand())
	return noun
}

func (c *cli) tokenCommand() *cobra.Command {
	var (
		role    string
		expires time.Duration
		uses    int
	)
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make the secret with which a new host joins",
		Long: `Make the secret with which a new host joins. It holds a pin of the cluster's CA and a secret that expires; treat it like
a password. It is shown once.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if role != "balancer" && role != "witness" {
				return usagef("use --role balancer or --role witness", "unknown role %q", role)
			}
			if expires < time.Second {
				return usagef("say for example --expires 2h", "a token that lives for %s is of no use", expires)
			}
			if uses < 1 {
				return usagef("--uses is the number of hosts that may join with it", "a token for %s is of no use", count(uses, "host"))
			}
			ctx, cancel := bounded(cmd)
			defer cancel()
			t, err := c.node().NewToken(ctx, api.TokenRequest{Role: role, ExpiresSeconds: int64(expires / time.Second), Uses: uses})
			if err != nil {
				return err
			}
			return c.show(view{
				doc:   t,
				draw:  func(bool) { c.drawToken(t) },
				names: func() []string { return []string{t.Token} },
			})
		},
	}
	cmd.Flags().StringVar(&role, "role", "balancer", "what the host is to be: balancer or witness")
	cmd.Flags().DurationVar(&expires, "expires", time.Hour, "how long it may be used")
	cmd.Flags().IntVar(&uses, "uses", 1, "how many hosts may join with it")
	return cmd
}

func (c *cli) drawToken(t *api.Token) {
	fmt.Fprintf(c.out, "On the new host, with its own /etc/skein/node.hcl:\n\n")
	fmt.Fprintf(c.out, "  skein cluster join %s --token %s\n\n", t.Address, t.Token)
	fmt.Fprintf(c.out, "It is for %s with the role %q until %s. Treat it like a password.\n",
		count(t.Uses, "host"), t.Role, t.ExpiresAt.Local().Format("2006-01-02 15:04:05"))
}
