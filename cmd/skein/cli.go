package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/skeinlb/skein/api/client"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/internal/node"
)

// cli is one invocation of the command: where it reads and writes, and the flags that every verb has.
type cli struct {
	in       io.Reader
	out      io.Writer
	errOut   io.Writer
	env      func(string) string
	now      func() time.Time
	inTTY    bool // a human can be asked
	outTTY   bool
	errTTY   bool
	outWidth func() int // of the terminal; 0: unlimited

	// Flags of every verb.
	socket  string
	address string
	dataDir string
	output  string

	cl *client.Client // made by the first use
}

// newCLI is the cli of this process.
func newCLI() *cli {
	c := &cli{
		in: os.Stdin, out: os.Stdout, errOut: os.Stderr,
		env:    os.Getenv,
		now:    time.Now,
		inTTY:  term.IsTerminal(int(os.Stdin.Fd())),
		outTTY: term.IsTerminal(int(os.Stdout.Fd())),
		errTTY: term.IsTerminal(int(os.Stderr.Fd())),
	}
	c.outWidth = func() int {
		if w, _, err := term.GetSize(int(os.Stdout.Fd())); c.outTTY && err == nil {
			return w
		}
		return 0
	}
	return c
}

// run executes one command line and returns the exit code.
func (c *cli) run(ctx context.Context, args []string) int {
	out := &sink{Writer: c.out}
	c.out = out
	root := c.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if c.cl != nil {
		c.cl.Close()
	}
	return c.finish(out.judge(err))
}

// rootCommand is the tree of all verbs.
func (c *cli) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "skein",
		Short: "A clustered load balancer",
		Long: `skein is a clustered load balancer in one binary: two or more hosts share virtual addresses,
one configuration and their sticky sessions. When one of them falls, another takes its place.

To try it: "skein demo", or "skein run FILE". Verbs that ask the cluster do so through the agent on this host.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddGroup(
		&cobra.Group{ID: groupDaily, Title: "Every day:"},
		&cobra.Group{ID: groupObjects, Title: "Objects:"},
		&cobra.Group{ID: groupNode, Title: "This node and its cluster:"},
	)
	root.PersistentFlags().StringVar(&c.socket, "socket", "",
		"socket of the agent (default $SKEIN_SOCKET, else "+client.DefaultSocket+")")
	root.PersistentFlags().StringVar(&c.address, "address", "", "ask the node at HOST[:PORT] instead, with this node's certificate")
	root.PersistentFlags().StringVar(&c.dataDir, "data-dir", client.DefaultDir, "where --address finds the certificate")
	root.PersistentFlags().StringVarP(&c.output, "output", "o", "", "table, wide, json, yaml or name (default table)")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if err := c.checkOutput(); err != nil {
			return err
		}
		return c.connect()
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usagef(seeHelp(cmd), "%s", flagWords(err)) })
	root.SetHelpCommandGroupID(groupNode)
	root.SetCompletionCommandGroupID(groupNode)
	root.AddCommand(c.commands()...)
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.errOut)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd() // now, so that it refuses a shell that it does not know
	helpRefuses(root)
	nounsRefuse(root)
	return root
}

const (
	groupDaily   = "daily"
	groupObjects = "objects"
	groupNode    = "node"
)

// commands are the verbs and nouns below the root.
func (c *cli) commands() []*cobra.Command {
	return []*cobra.Command{
		c.statusCommand(), c.topCommand(), c.checkCommand(), c.fmtCommand(), c.planCommand(), c.applyCommand(), c.showCommand(),
		c.vipCommand(), c.backendCommand(), c.serverCommand(), c.listCommand(), c.certCommand(), c.nodeCommand(),
		c.runCommand(), c.agentCommand(), c.guardCommand(), c.clusterCommand(), c.demoCommand(), c.labSweeperCommand(), c.versionCommand(),
	}
}

// nounsRefuse makes every command that only groups others refuse a word that it does not know, with a suggestion.
func nounsRefuse(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		nounsRefuse(sub)
	}
	if !cmd.HasSubCommands() {
		return
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, args[0])
	}
}

// helpRefuses makes "help" refuse a command that there is not, as that command itself is refused.
func helpRefuses(root *cobra.Command) {
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		return
	}
	help.Args = func(_ *cobra.Command, given []string) error {
		cmd, rest, err := root.Find(given)
		if err != nil || len(rest) == 0 {
			return err
		}
		return unknownCommand(cmd, rest[0])
	}
}

func unknownCommand(cmd *cobra.Command, word string) error {
	hint := seeHelp(cmd)
	if near := cmd.SuggestionsFor(word); len(near) > 0 {
		hint = fmt.Sprintf("did you mean `%s %s`?", cmd.CommandPath(), near[0])
	}
	return usagef(hint, "unknown command %q for `%s`", word, cmd.CommandPath())
}

// flagWords is an error in a flag in words for people: what the parsers of numbers and times say is for programmers.
func flagWords(err error) string {
	what := err.Error()
	for _, w := range []struct{ theirs, ours string }{
		{": strconv.ParseBool: ", "it takes true or false"},
		{": strconv.", "it takes a number"},
		{": time: ", "it takes a time, as in 30s, 5m or 2h"},
	} {
		if head, _, ok := strings.Cut(what, w.theirs); ok {
			return head + ": " + w.ours
		}
	}
	return what
}

func seeHelp(cmd *cobra.Command) string {
	return fmt.Sprintf("`%s --help` shows how it is used", cmd.CommandPath())
}

// args checks the number of arguments. names are their words in the usage line: "[WORD]" may be left out, the last one may end in
// "..." for more.
func args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		usage := "usage: " + cmd.UseLine()
		if i := slices.Index(given, ""); i >= 0 && len(names) > 0 {
			return usagef(usage, "`%s` does not take an empty %s", cmd.CommandPath(), strings.Trim(names[min(i, len(names)-1)], "[]."))
		}
		if len(given) < len(names) && !strings.HasPrefix(names[len(given)], "[") {
			return usagef(usage, "`%s` needs %s", cmd.CommandPath(), strings.TrimSuffix(names[len(given)], "..."))
		}
		more := len(names) > 0 && strings.HasSuffix(names[len(names)-1], "...")
		if len(given) > len(names) && !more {
			return usagef(usage, "`%s` does not take %q", cmd.CommandPath(), given[len(names)])
		}
		return nil
	}
}

// connect makes the client of the agent that the flags name. It connects to nobody yet.
func (c *cli) connect() error {
	switch {
	case c.cl != nil:
		return nil
	case c.address != "" && c.socket != "":
		return usagef("leave one of them out", "--socket and --address name two different agents")
	case c.address != "":
		conf, err := client.Identity(c.dataDir)
		if err != nil {
			return &refusal{code: exitUnreachable, what: err.Error(),
				hint: "--address needs the certificate of a node: run it on a member as root, or give its --data-dir"}
		}
		c.cl = client.NewTLS(client.WithPort(c.address), conf)
		return nil
	}
	c.cl = client.New(cmp.Or(c.socket, c.env("SKEIN_SOCKET"), client.DefaultSocket))
	return nil
}

// node returns the client of the agent.
func (c *cli) node() *client.Client { return c.cl }

// bounded is the time that a plain question to the agent may take.
func bounded(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return context.WithTimeout(cmd.Context(), 15*time.Second)
}

// color says whether output may be coloured. Colour never says what a word does not say too.
func (c *cli) color(tty bool) bool { return tty && c.env("NO_COLOR") == "" && c.env("TERM") != "dumb" }

// readFile reads FILE; "-" is standard input. It returns the name for messages.
func (c *cli) readFile(path string) (name string, text []byte, err error) {
	return c.readText(path, "configuration")
}

// readText is readFile for any text that is what says.
func (c *cli) readText(path, what string) (name string, text []byte, err error) {
	if path == "-" {
		text, err = io.ReadAll(io.LimitReader(c.in, config.MaxSize+1))
		name = "stdin"
		switch {
		case err != nil:
		case len(text) > config.MaxSize:
			err = fmt.Errorf("%s is larger than %d MiB", name, config.MaxSize>>20)
		case len(bytes.TrimSpace(text)) == 0: // whatever was to write it has failed; `apply -` would take everything away
			return name, nil, failf("to mean an empty one, name a file", "read the %s: nothing came from standard input", what)
		}
	} else {
		text, err = node.ReadFile(path)
		name = path
	}
	if err != nil {
		return name, nil, failed(fmt.Errorf("read the %s: %w", what, err))
	}
	return name, text, nil
}

// confirm asks whether to go on, after the caller has shown the effect.
func (c *cli) confirm(ctx context.Context, question string) error {
	answer, err := c.ask(ctx, question+" [y/N] ")
	if err != nil {
		return err
	}
	if a := strings.ToLower(answer); a == "y" || a == "yes" {
		return nil
	}
	return failf("", "nothing was changed")
}

// ask prints a question and returns the line that is typed. Where nobody can be asked it refuses.
func (c *cli) ask(ctx context.Context, question string) (string, error) {
	if !c.inTTY {
		return "", failf("repeat the command with --yes to do it without being asked", "this needs a confirmation, and nobody can be asked here")
	}
	fmt.Fprint(c.errOut, question)
	answer := make(chan string, 1)
	go func() { // ends with the line, or with the process: a read from a terminal cannot be interrupted
		line, _ := bufio.NewReader(c.in).ReadString('\n')
		answer <- strings.TrimSpace(line)
	}()
	select {
	case line := <-answer:
		return line, nil
	case <-ctx.Done():
		fmt.Fprintln(c.errOut)
		return "", failf("", "interrupted; nothing was changed")
	}
}
