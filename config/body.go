package config

import (
	"fmt"
	"slices"
	"sort"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// body reads one block. Whoever reads asks for each word that the block takes, attr or block, and then calls done, which
// reports every word that nobody asked for. So a word exists in exactly one place: where it is read.
type body struct {
	*source
	kind   string    // "backend"
	what   string    // `backend "shop"`
	header hcl.Range // where to point for what is missing
	body   *hclsyntax.Body

	attrs  []string // words asked for
	blocks []string
	silent []string // words that are known, but not offered: refused ones
}

func (s *source) read(b *hclsyntax.Block, what string) *body {
	return &body{source: s, kind: b.Type, what: what, header: b.DefRange(), body: b.Body}
}

// attr returns an attribute's expression, or nil.
func (b *body) attr(name string) hclsyntax.Expression {
	b.attrs = append(b.attrs, name)
	if a := b.body.Attributes[name]; a != nil {
		return a.Expr
	}
	return nil
}

// has tells whether an attribute is written, without asking for it.
func (b *body) has(name string) bool { return b.body.Attributes[name] != nil }

// nameRange is where an attribute's name stands; the block's header when it is not written.
func (b *body) nameRange(name string) hcl.Range {
	if a := b.body.Attributes[name]; a != nil {
		return a.NameRange
	}
	return b.header
}

// valueRange is where an attribute's value stands; the block's header when it is not written.
func (b *body) valueRange(name string) hcl.Range {
	if a := b.body.Attributes[name]; a != nil {
		return a.Expr.Range()
	}
	return b.header
}

// all returns the blocks of one type, in written order.
func (b *body) all(name string) []*hclsyntax.Block {
	b.blocks = append(b.blocks, name)
	var found []*hclsyntax.Block
	for _, c := range b.body.Blocks {
		if c.Type == name {
			found = append(found, c)
		}
	}
	return found
}

// one returns the only block of a type, or nil; more than one is reported.
func (b *body) one(name string) *hclsyntax.Block {
	found := b.all(name)
	if len(found) == 0 {
		return nil
	}
	for _, c := range found[1:] {
		b.errorf(c.DefRange(), fmt.Sprintf("the first is in line %d", found[0].TypeRange.Start.Line), "%s has more than one %q block", b.what, name)
	}
	return found[0]
}

// plain returns the only block of a type that takes no label, as a body to read; nil when there is none.
func (b *body) plain(name string) *body {
	c := b.one(name)
	if c == nil {
		return nil
	}
	b.noLabels(c)
	return b.read(c, fmt.Sprintf("%s of %s", name, b.what))
}

func (s *source) noLabels(c *hclsyntax.Block) {
	if len(c.Labels) > 0 {
		s.errorf(c.LabelRanges[0], fmt.Sprintf("write %s { ... }", c.Type), "%q takes no name", c.Type)
	}
}

// refuse reports a word that the language has and this version has not: it must never be accepted and do nothing.
func (b *body) refuse(word, instead string) {
	b.silent = append(b.silent, word)
	b.each(word, func(rng hcl.Range) { b.unsupported(rng, fmt.Sprintf("%q", word), instead) })
}

// misplaced reports a word that has no meaning here, for the given reason.
func (b *body) misplaced(word, summary, hint string) {
	b.silent = append(b.silent, word)
	b.each(word, func(rng hcl.Range) { b.errorf(rng, hint, "%s", summary) })
}

func (b *body) each(word string, f func(hcl.Range)) {
	if a := b.body.Attributes[word]; a != nil {
		f(a.NameRange)
	}
	for _, c := range b.body.Blocks {
		if c.Type == word {
			f(c.DefRange())
		}
	}
}

func (s *source) unsupported(rng hcl.Range, what, instead string) {
	s.errorf(rng, instead, "%s is not supported by this version", what)
}

// done reports the words that nobody asked for.
func (b *body) done() {
	known := append(slices.Clone(b.attrs), b.blocks...)
	for _, w := range known {
		if !slices.Contains(b.words[b.kind], w) {
			b.words[b.kind] = append(b.words[b.kind], w)
		}
	}
	var names []string
	for name := range b.body.Attributes {
		names = append(names, name)
	}
	sort.Strings(names) // the findings are sorted by place in the end; this is for two of one place
	for _, name := range names {
		a := b.body.Attributes[name]
		switch {
		case slices.Contains(b.attrs, name), slices.Contains(b.silent, name):
		case slices.Contains(b.blocks, name):
			b.errorf(a.NameRange, fmt.Sprintf("write it without the equals sign: %s { ... }", name), "%q of %s is a block", name, b.what)
		default:
			b.errorf(a.NameRange, didYouMean(name, known, b.kind+" takes"), "unknown attribute %q in %s", name, b.what)
		}
	}
	for _, c := range b.body.Blocks {
		switch {
		case slices.Contains(b.blocks, c.Type), slices.Contains(b.silent, c.Type):
		case slices.Contains(b.attrs, c.Type):
			b.errorf(c.TypeRange, fmt.Sprintf("write it with an equals sign: %s = ...", c.Type), "%q of %s is an attribute", c.Type, b.what)
		default:
			b.errorf(c.TypeRange, didYouMean(c.Type, known, b.kind+" takes"), "unknown block %q in %s", c.Type, b.what)
		}
	}
}

// label returns the one name of a block. It is "" when there is none or it cannot be used.
func (s *source) label(c *hclsyntax.Block, example string) string {
	if len(c.Labels) != 1 {
		rng := c.DefRange()
		if len(c.Labels) > 1 {
			rng = c.LabelRanges[1]
		}
		s.errorf(rng, fmt.Sprintf("write %s %q { ... }", c.Type, example), "%q takes one name", c.Type)
		return ""
	}
	return c.Labels[0]
}

// maxName bounds names: they are labels of metrics and words of the command line.
const maxName = 63

// name is a label that names an object.
func (s *source) name(c *hclsyntax.Block, example string) string {
	name := s.label(c, example)
	if len(c.Labels) == 1 && !goodName(name) {
		s.errorf(c.LabelRanges[0], fmt.Sprintf("use letters, digits, '-', '_' and '.', at most %d, a letter or digit first", maxName),
			"%q cannot be the name of a %s", name, c.Type)
		return ""
	}
	return name
}

// GoodName tells whether something can be named so.
func GoodName(name string) bool { return goodName(name) }

func goodName(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '_' && c != '.') {
			return false
		}
	}
	return 0 < len(name) && len(name) <= maxName
}
