package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/internal/golden"
)

const referenceHead = `# Commands

This page is written by a test from the commands themselves, with output of the real program:
` + "`go test ./cmd/skein -run Reference -rewrite`" + ` brings it up to date.

Nouns then verbs for objects (` + "`skein vip list`" + `), plain verbs for the few daily acts (` + "`skein apply`" + `). Every verb that asks the
cluster does so through the agent on this host: its socket is found by ` + "`--socket`" + `, else ` + "`SKEIN_SOCKET`" + `, else
` + "`/var/lib/skein/skein.sock`" + `. ` + "`--address HOST`" + ` asks another node with this node's certificate.

Output is a table on a terminal and in a pipe alike; ` + "`-o json`" + ` and ` + "`-o yaml`" + ` are stable and for programs, ` + "`-o name`" + ` is for the shell,
` + "`-o wide`" + ` shows more columns. Colour appears on a terminal only, never says anything alone, and is off with ` + "`NO_COLOR`" + `.
Reads work on any node, without a quorum too, and say then how old they are. Writes find the leader by themselves.

| exit code | meaning |
|---|---|
| 0 | fine |
| 1 | failed |
| 2 | a difference was found, or something is degraded |
| 3 | wrong usage |
| 4 | no agent could be reached, or access was denied |
| 5 | no quorum, or somebody else was faster |
`

// examples are shown below a command: changes of the world (@) and command lines, run one after the other on a cluster of three.
var examples = map[string][]string{
	"skein status":         {"@ wait 2h", "skein status", "@ down lb1 shop/s1 connection refused", "@ down lb2 shop/s1 connection refused", "@ dead lb3", "@ wait 3m", "skein status"},
	"skein check":          {"skein check edge.hcl", "skein check bad.hcl"},
	"skein fmt":            {"skein fmt --diff ugly.hcl"},
	"skein plan":           {"skein plan next.hcl"},
	"skein apply":          {`skein apply next.hcl -m "s3 joins, the old API goes"`, "skein apply edge.hcl --revision 1"},
	"skein show":           {"skein show -o name"},
	"skein vip list":       {"skein vip list -o wide"},
	"skein top":            {"skein top"},
	"skein vip show":       {"@ drains lb1 1318 4m", "skein vip move public lb2 --no-wait", "skein vip show public"},
	"skein vip move":       {"@ drains lb1 1318 12s", "skein vip move public"},
	"skein node show":      {"skein node show lb1"},
	"skein node drain":     {"@ drains lb1 1318 12s", "skein node drain lb1", "skein node list"},
	"skein node enable":    {"skein node drain lb2 --no-wait", "skein node enable lb2"},
	"skein vip explain":    {"skein vip explain public"},
	"skein backend list":   {"@ down lb2 api/a1 connection refused", "skein backend list"},
	"skein server list":    {"skein server list"},
	"skein server drain":   {"skein server drain shop/s1"},
	"skein server disable": {"skein server disable api/a1", "skein server disable api/a1 --yes"},
	"skein server enable":  {"skein server enable shop/s1"},
	"skein server weight":  {"skein server weight shop/s2 5", "skein server weight shop/s2 file"},
	"skein node list":      {"skein node list"},
	"skein node remove":    {"@ answer y", "skein node remove lb3"},
	"skein cluster token":  {"skein cluster token --role witness"},
}

func TestReferenceIsCurrent(t *testing.T) {
	path, err := filepath.Abs("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(referenceHead)
	used := 0
	for _, group := range []string{groupDaily, groupObjects, groupNode} {
		for _, cmd := range newCLI().rootCommand().Commands() {
			if cmd.GroupID == group {
				used += describe(t, &b, cmd)
			}
		}
	}
	if used != len(examples) {
		t.Errorf("%d of %d examples belong to a command", used, len(examples))
	}
	golden.File(t, path, b.String())
}

// describe writes cmd and what is below it, and returns how many of them had examples.
func describe(t *testing.T, b *strings.Builder, cmd *cobra.Command) int {
	if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" {
		return 0
	}
	used := 0
	if cmd.HasSubCommands() {
		for _, sub := range cmd.Commands() {
			used += describe(t, b, sub)
		}
		return used
	}
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n    %s\n", cmd.CommandPath(), text, cmd.UseLine())
	if flags := cmd.LocalFlags().FlagUsages(); flags != "" {
		fmt.Fprintf(b, "\n```\n%s```\n", flags)
	}
	if lines, ok := examples[cmd.CommandPath()]; ok {
		used = 1
		fmt.Fprintf(b, "\n```\n%s```\n", example(t, lines))
	}
	return used
}

// example runs command lines as an operator would and returns the terminal.
func example(t *testing.T, lines []string) string {
	var b strings.Builder
	t.Run(lines[len(lines)-1], func(t *testing.T) {
		enterFiles(t)
		synctest.Test(t, func(t *testing.T) {
			w := &world{t: t}
			w.change("nodes lb1 lb2 lb3")
			w.change("config edge.hcl")
			first := true
			for _, line := range lines {
				if change, ok := strings.CutPrefix(line, "@ "); ok {
					w.change(change)
					continue
				}
				if !first {
					b.WriteByte('\n')
				}
				first = false
				out := w.run(line)
				out = out[:strings.LastIndex(strings.TrimSuffix(out, "\n"), "\n")+1] // without the exit code
				fmt.Fprintf(&b, "$ %s\n%s", line, strings.ReplaceAll(out, "2> ", ""))
			}
		})
	})
	return b.String()
}
