package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/api"
)

// completeTimeout is what a shell may wait for after the tab key.
const completeTimeout = time.Second

// complete offers live names for the first n arguments; n = 0: for all of them. Without an agent it offers nothing.
func (c *cli) complete(n int, names func(context.Context) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
		if n > 0 && len(given) >= n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if c.connect() != nil { // completion runs before any flag is checked
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		all := names(ctx)
		return slices.DeleteFunc(all, func(s string) bool { return slices.Contains(given, s) }), cobra.ShellCompDirectiveNoFileComp
	}
}

func (c *cli) vipNames(ctx context.Context) []string {
	l, err := c.node().VIPs(ctx)
	if err != nil {
		return nil
	}
	return names(l.VIPs, func(v api.VIPStatus) string { return v.Name })
}

func (c *cli) backendNames(ctx context.Context) []string {
	l, err := c.node().Backends(ctx)
	if err != nil {
		return nil
	}
	return names(l.Backends, func(b api.BackendStatus) string { return b.Name })
}

func (c *cli) serverNames(ctx context.Context) []string {
	l, err := c.node().Servers(ctx)
	if err != nil {
		return nil
	}
	return names(l.Servers, serverName)
}

func (c *cli) certificateNames(ctx context.Context) []string {
	l, err := c.node().Certificates(ctx)
	if err != nil {
		return nil
	}
	return names(l.Certificates, func(cs api.CertificateStatus) string { return cs.Name })
}

func (c *cli) nodeNames(ctx context.Context) []string {
	l, err := c.node().Nodes(ctx)
	if err != nil {
		return nil
	}
	return names(l.Nodes, func(n api.NodeStatus) string { return n.Name })
}
