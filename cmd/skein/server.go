package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/api"
)

func (c *cli) serverCommand() *cobra.Command {
	noun := &cobra.Command{
		Use:     "server",
		Short:   "Servers: list, drain, disable, enable, weight",
		GroupID: groupObjects,
		Long: `Servers, and what is wanted of them at run time. What is set here is replicated, survives restarts and outranks
the configuration until it is cleared ("enable", "weight ... file").

A server is named BACKEND/SERVER.`,
	}
	noun.AddCommand(
		c.serverListCommand(),
		c.serverStateCommand("drain", "Give it no new clients; those who are on it stay", "drain"),
		c.serverStateCommand("disable", "Give it nothing at all", "disabled"),
		c.serverStateCommand("enable", "Use it again, as its health allows", "enabled"),
		c.serverWeightCommand(),
	)
	return noun
}

func (c *cli) serverListCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "list [BACKEND]",
		Short:             "What each server is doing, and who sees it how",
		Args:              args("[BACKEND]"),
		ValidArgsFunction: c.complete(1, c.backendNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx, cancel := bounded(cmd)
			defer cancel()
			l, err := c.node().Servers(ctx)
			if err != nil {
				return err
			}
			if len(a) == 1 {
				all := l.Servers
				l.Servers = slices.DeleteFunc(slices.Clone(all), func(s api.ServerStatus) bool { return s.Backend != a[0] })
				if len(l.Servers) == 0 {
					hint := "`skein backend list` shows all"
					if len(all) > 0 {
						hint = "there are " + list(slices.Compact(names(all, func(s api.ServerStatus) string { return s.Backend })))
					}
					return failf(hint, "there is no backend %q", a[0])
				}
			}
			return c.show(view{
				doc:   l,
				draw:  func(wide bool) { c.drawList(c.serverTable(l.Servers, wide), l.AsOf, "no server is configured") },
				names: func() []string { return names(l.Servers, serverName) },
			})
		},
	}
}

func serverName(s api.ServerStatus) string { return s.Backend + "/" + s.Name }

func (c *cli) serverTable(servers []api.ServerStatus, wide bool) *table {
	head := []string{"SERVER", "STATE", "ADDRESS", "WEIGHT", "ACTIVE", "REQUESTS", "FAILURES", "WHY"}
	if wide {
		head = slices.Insert(slices.Clone(head), 7, "REQ/S", "P50", "P99", "MAX", "BACKUP")
	}
	t := newTable(head...)
	for _, s := range servers {
		weight := strconv.Itoa(s.Weight)
		if s.WeightSet {
			weight += fmt.Sprintf(" (file: %d)", s.FileWeight)
		}
		cells := []any{serverName(s), serverCell(s.State), s.Address, weight, s.Active, s.Requests, s.Failures}
		if wide {
			limit, backup := "", "no"
			if s.MaxConnections > 0 {
				limit = strconv.Itoa(s.MaxConnections)
			}
			if s.Backup {
				backup = "yes"
			}
			cells = append(cells, rate(s.Pace.Requests), duration(s.Pace.P50Ms), duration(s.Pace.P99Ms), limit, backup)
		}
		t.row(append(cells, c.serverWhy(&s))...)
	}
	return t
}

func serverCell(s api.ServerState) cell {
	switch s {
	case api.ServerUp:
		return toned(good, string(s))
	case api.ServerDown:
		return toned(bad, string(s))
	case api.ServerUnchecked:
		return cell{text: string(s)}
	}
	return toned(warn, string(s))
}

// serverWhy says what is behind a server's state.
func (c *cli) serverWhy(s *api.ServerStatus) string {
	why := strings.TrimPrefix(whyDown(s), ": ")
	switch s.State {
	case api.ServerDrain, api.ServerDisabled:
		set := strings.TrimPrefix(strings.TrimSpace(adminWords(c, s)), ", ")
		if why == "" {
			return clean(set)
		}
		return clean(set + "; down: " + why)
	case api.ServerDown:
		return clean(strings.TrimSpace(c.sinceSeen(s) + ": " + why))
	}
	if t := c.trafficWords(s); t != "" && why != "" {
		why += "; " + t
	} else {
		why += t
	}
	return clean(why)
}

// splitServer reads BACKEND/SERVER.
func splitServer(word string) (backend, server string, err error) {
	backend, server, ok := strings.Cut(word, "/")
	if !ok || backend == "" || server == "" {
		return "", "", usagef("name it BACKEND/SERVER, as `skein server list -o name` does", "%q does not name a server", word)
	}
	return backend, server, nil
}

func (c *cli) serverStateCommand(verb, short, state string) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:               verb + " BACKEND/SERVER...",
		Short:             short,
		Args:              args("BACKEND/SERVER..."),
		ValidArgsFunction: c.complete(0, c.serverNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			for _, word := range a { // all are looked at before one is changed
				if _, _, err := splitServer(word); err != nil {
					return err
				}
			}
			if state != "enabled" && !yes {
				if err := c.confirmLast(cmd, verb, a); err != nil {
					return err
				}
			}
			return c.setServers(cmd, a, api.ServerRequest{State: &state})
		},
	}
	if state != "enabled" {
		cmd.Flags().BoolVar(&yes, "yes", false, "do not ask, even when no usable server is left")
	}
	return cmd
}

// confirmLast asks before the last usable servers of a backend are taken away.
func (c *cli) confirmLast(cmd *cobra.Command, verb string, words []string) error {
	ctx, cancel := bounded(cmd)
	defer cancel()
	l, err := c.node().Backends(ctx)
	if err != nil {
		return err
	}
	for _, b := range l.Backends {
		usable, left := 0, 0
		for _, s := range b.Servers {
			if s.State != api.ServerUp && s.State != api.ServerUnchecked && s.State != api.ServerPartly {
				continue
			}
			usable++
			if !slices.Contains(words, serverName(s)) {
				left++
			}
		}
		if usable == 0 || left > 0 {
			continue
		}
		fmt.Fprintf(c.errOut, "This leaves backend %q without a usable server: its clients get errors.\n", b.Name)
		if len(b.UsedBy) > 0 {
			fmt.Fprintf(c.errOut, "It serves %s.\n", list(b.UsedBy))
		}
		if err := c.confirm(cmd.Context(), verb+" it all the same?"); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) serverWeightCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "weight BACKEND/SERVER WEIGHT",
		Short:             `Its share of new requests: 0 to 256, or "file" for what the configuration says`,
		Args:              args("BACKEND/SERVER", "WEIGHT"),
		ValidArgsFunction: c.complete(1, c.serverNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			if _, _, err := splitServer(a[0]); err != nil {
				return err
			}
			weight := -1
			if a[1] != "file" {
				n, err := strconv.Atoi(a[1])
				if err != nil || n < 0 || n > 256 {
					return usagef("a weight is a number from 0 to 256, or the word file", "weight %q makes no sense", a[1])
				}
				weight = n
			}
			return c.setServers(cmd, a[:1], api.ServerRequest{Weight: &weight})
		},
	}
}

// setServers changes servers one after the other and shows them as they are then.
func (c *cli) setServers(cmd *cobra.Command, words []string, req api.ServerRequest) error {
	done := []api.ServerStatus{}
	for _, word := range words {
		backend, server, err := splitServer(word)
		if err != nil {
			return err
		}
		ctx, cancel := bounded(cmd)
		s, err := c.node().SetServer(ctx, backend, server, req)
		cancel()
		if err != nil {
			return err
		}
		done = append(done, *s)
	}
	return c.show(view{
		doc: struct {
			Servers []api.ServerStatus `json:"servers"`
		}{done},
		draw:  func(wide bool) { c.drawTable(c.serverTable(done, wide)) },
		names: func() []string { return names(done, serverName) },
	})
}
