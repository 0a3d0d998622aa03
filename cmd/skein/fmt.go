package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/config"
)

// fmtDoc is what `fmt -o json` prints.
type fmtDoc struct {
	File      string `json:"file"`
	Formatted bool   `json:"formatted"` // it was in canonical form already
	Text      string `json:"text"`
}

func (c *cli) fmtCommand() *cobra.Command {
	var write, check, diff bool
	cmd := &cobra.Command{
		Use:     "fmt FILE",
		Short:   "Bring a configuration file into the canonical form",
		GroupID: groupDaily,
		Long: `Bring a configuration file into the canonical form and print it. Meaning and comments stay. With -w it is written back,
with --check only the exit code says whether anything would change (2: yes), with --diff the difference is shown.`,
		Args: args("FILE"),
		RunE: func(cmd *cobra.Command, a []string) error {
			if write && check || write && diff || check && diff {
				return usagef("use one of them", "-w, --check and --diff exclude one another")
			}
			if write && a[0] == "-" {
				return usagef("leave out -w to print it", "standard input cannot be written back")
			}
			name, text, err := c.readFile(a[0])
			if err != nil {
				return err
			}
			out, found := config.Format(name, text)
			if found.HasErrors() {
				c.printFound(found)
				return failf("", "%s; nothing was changed", mistakes(name, found))
			}
			same := bytes.Equal(text, out)
			if write && !same {
				if err := replaceFile(a[0], out); err != nil {
					return failed(err)
				}
			}
			if err := c.showFmt(name, text, out, write, check, diff); err != nil {
				return err
			}
			if (check || diff) && !same {
				return silent(exitDifference)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&write, "write", "w", false, "write the file back")
	cmd.Flags().BoolVar(&check, "check", false, "only say whether it is in the canonical form")
	cmd.Flags().BoolVar(&diff, "diff", false, "show what would change")
	return cmd
}

func (c *cli) showFmt(name string, text, out []byte, write, check, diff bool) error {
	same := bytes.Equal(text, out)
	return c.show(view{
		doc: fmtDoc{File: name, Formatted: same, Text: string(out)},
		draw: func(bool) {
			switch {
			case diff:
				c.drawDiff(name, text, out)
			case check && !same:
				fmt.Fprintf(c.out, "%s is not in the canonical form; skein fmt -w %s mends it\n", name, name)
			case write && !same:
				fmt.Fprintf(c.out, "%s is written\n", name)
			case check || write:
			default:
				c.out.Write(out)
			}
		},
		names: func() []string {
			if same {
				return nil
			}
			return []string{name}
		},
	})
}

// replaceFile puts text in the place of the file at path in one step, so that a crash leaves the old one or the new one.
func replaceFile(path string, text []byte) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("write %s back: %w", path, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".skein-fmt-*")
	if err != nil {
		return fmt.Errorf("write %s back: %w", path, err)
	}
	defer os.Remove(tmp.Name()) // nothing is left to remove after the rename
	_, err = tmp.Write(text)
	if err == nil {
		err = tmp.Chmod(info.Mode().Perm())
	}
	if err == nil {
		err = tmp.Sync()
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s back: %w", path, err)
	}
	return nil
}

// drawDiff draws the difference of two texts, with the lines around it.
func (c *cli) drawDiff(name string, from, to []byte) {
	p := painter(c.color(c.outTTY))
	hunks := diffLines(from, to)
	if len(hunks) == 0 {
		return
	}
	fmt.Fprintf(c.out, "%s\n%s\n", p.paint(strong, "--- "+name), p.paint(strong, "+++ "+name+" (canonical)"))
	for _, h := range hunks {
		fmt.Fprintln(c.out, p.paint(dim, h.head()))
		for _, l := range h.lines {
			tn := plain
			switch l[0] {
			case '+':
				tn = good
			case '-':
				tn = bad
			}
			fmt.Fprintln(c.out, p.paint(tn, l))
		}
	}
}
