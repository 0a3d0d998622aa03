package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

var outputs = []string{"table", "wide", "json", "yaml", "name"}

func (c *cli) checkOutput() error {
	if c.output == "" || slices.Contains(outputs, c.output) {
		return nil
	}
	return usagef("use one of "+strings.Join(outputs, ", "), "unknown output format %q", c.output)
}

// sink is standard output. It remembers that something could not be written: on a full disk, `skein show > edge.hcl` is no success.
type sink struct {
	io.Writer
	err error
}

func (s *sink) Write(b []byte) (int, error) {
	n, err := s.Writer.Write(b)
	if err != nil && s.err == nil {
		s.err = err
	}
	return n, err
}

// stdout is standard output itself, for a process that is given it: through anything else a shell would see no terminal.
func (c *cli) stdout() io.Writer {
	if s, ok := c.out.(*sink); ok {
		return s.Writer
	}
	return c.out
}

// judge returns how a command that ended with err has ended, given what became of its output.
func (s *sink) judge(err error) error {
	var said silent
	if s.err == nil || err != nil && !errors.As(err, &said) {
		return err
	}
	return failf("the command was carried out, but what it had to say is lost", "write to standard output: %v", s.err)
}

// view is a document in its three forms: itself for machines, a drawing for people, names for pipes.
type view struct {
	doc   any
	draw  func(wide bool)
	names func() []string
}

// show writes v in the form that -o asks for.
func (c *cli) show(v view) error {
	switch c.output {
	case "json":
		return c.writeJSON(v.doc)
	case "yaml":
		return c.writeYAML(v.doc)
	case "name":
		for _, n := range v.names() {
			fmt.Fprintln(c.out, n)
		}
		return nil
	}
	v.draw(c.output == "wide")
	return nil
}

// machine says whether the output is for a program: then nothing but the document is written to it.
func (c *cli) machine() bool { return c.output == "json" || c.output == "yaml" || c.output == "name" }

func (c *cli) writeJSON(doc any) error {
	enc := json.NewEncoder(c.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(doc); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// writeYAML goes through JSON, so that both have the same names in the same order: JSON is YAML in another style.
func (c *cli) writeYAML(doc any) error {
	b, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("write YAML: %w", err)
	}
	var n yaml.Node
	if err := yaml.Unmarshal(b, &n); err != nil {
		return fmt.Errorf("write YAML: %w", err)
	}
	unstyle(&n)
	enc := yaml.NewEncoder(c.out)
	enc.SetIndent(2)
	if err := enc.Encode(&n); err != nil {
		return fmt.Errorf("write YAML: %w", err)
	}
	return enc.Close()
}

func unstyle(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		var plain yaml.Node
		plain.SetString(n.Value) // quotes what would be read as a number or a bool, blocks what has lines
		n.Style = plain.Style
	}
	for _, k := range n.Content {
		unstyle(k)
	}
}

// drawTable writes t to standard output.
func (c *cli) drawTable(t *table) { t.write(c.out, c.outWidth(), painter(c.color(c.outTTY))) }

// ago is how long before now t was, in the largest unit that says enough.
func (c *cli) ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return span(c.now().Sub(t))
}

func span(d time.Duration) string {
	d = max(d, 0) // clocks of two hosts differ
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// list joins names as a person would.
func list(names []string) string {
	switch len(names) {
	case 0:
		return ""
	case 1:
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// count is "1 node", "2 nodes".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
