package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/internal/node"
)

// versionDoc is what the binary knows of its making.
type versionDoc struct {
	Version string `json:"version"`
	Level   int    `json:"level"` // the newest level of commands that it applies
	Commit  string `json:"commit,omitempty"`
	Changed bool   `json:"changed,omitempty"` // built from a tree with uncommitted changes
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// release is the version that the Makefile's linker flags set; "" in a binary built without them.
var release string

func version() versionDoc {
	v := versionDoc{Version: cmp.Or(release, "devel"), Level: node.Level, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if release == "" && info.Main.Version != "" && info.Main.Version != "(devel)" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.modified":
			v.Changed = s.Value == "true"
		}
	}
	return v
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "What this binary is",
		GroupID: groupNode,
		Args:    args(),
		RunE: func(*cobra.Command, []string) error {
			v := version()
			return c.show(view{
				doc: v,
				draw: func(bool) {
					fmt.Fprintf(c.out, "skein %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
				},
				names: func() []string { return []string{v.Version} },
			})
		},
	}
}
