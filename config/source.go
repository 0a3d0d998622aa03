package config

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

const (
	// MaxSize bounds a configuration's text. Ten thousand servers take less than one megabyte; a token takes a hundred times the
	// memory of its text.
	MaxSize = 2 << 20

	// The HCL parser is recursive. The following bound its stack, far above what a person writes: brackets within brackets, and
	// operators that nest to the right (!, -, ?, %{) within one pair of brackets.
	maxNesting   = 64
	maxOperators = 512
)

// source is one file with what was found in it so far.
type source struct {
	file  string
	src   []byte
	lines [][]byte // without their line ends
	diags Diagnostics
	words map[string][]string // kind of block -> every word it takes; what the reference documentation is tested against
}

func newSource(file string, src []byte) *source {
	lines := bytes.Split(src, []byte("\n"))
	for i, l := range lines {
		lines[i] = bytes.TrimSuffix(l, []byte("\r"))
	}
	return &source{file: file, src: src, lines: lines, words: map[string][]string{}}
}

// parse reads the syntax. It returns nil when the tree is not worth looking at.
func (s *source) parse() *hclsyntax.Body {
	start := hcl.Range{Filename: s.file, Start: hcl.InitialPos, End: hcl.InitialPos}
	if len(s.src) > MaxSize {
		s.errorf(start, "split what belongs to different clusters", "the file has %d bytes, more than %d", len(s.src), MaxSize)
		return nil
	}
	if !s.isText() {
		return nil
	}
	if t := bytes.TrimLeft(s.src, " \t\r\n"); strings.HasSuffix(s.file, ".json") || len(t) > 0 && t[0] == '{' {
		s.errorf(start, `write HCL: frontend "shop" { ... }`, "JSON is not supported by this version")
		return nil
	}
	if !s.shallow() {
		return nil
	}
	f, diags := hclsyntax.ParseConfig(s.src, s.file, hcl.InitialPos)
	for _, d := range diags {
		s.syntax(d)
		if d.Summary == "Invalid multi-line string" {
			break // from here on the parser takes strings for text and text for strings
		}
	}
	for _, d := range diags {
		// After any other syntax error the tree lacks parts, and what is said about it would be wrong.
		if d.Severity == hcl.DiagError && d.Summary != attributeRedefined {
			return nil
		}
	}
	return f.Body.(*hclsyntax.Body)
}

// isText refuses a program, a picture or UTF-16 with one finding: the parser would have one for nearly every byte.
func (s *source) isText() bool {
	if utf8.Valid(s.src) && bytes.IndexByte(s.src, 0) < 0 {
		return true
	}
	for i, line := range s.lines {
		for at := 0; at < len(line); {
			r, n := utf8.DecodeRune(line[at:])
			if r != 0 && (r != utf8.RuneError || n > 1) {
				at += n
				continue
			}
			p := hcl.Pos{Line: i + 1, Column: utf8.RuneCount(line[:at]) + 1}
			s.errorf(hcl.Range{Filename: s.file, Start: p, End: p}, "save it as UTF-8", "this is no text in UTF-8")
			return false
		}
	}
	return true
}

// shallow refuses a file that nests so deeply that the recursive parser could run out of stack, which no Go program survives.
func (s *source) shallow() bool {
	tokens, _ := hclsyntax.LexConfig(s.src, s.file, hcl.InitialPos)
	var open []hclsyntax.TokenType
	operators := 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenOQuote,
			hclsyntax.TokenOHeredoc:
			open = append(open, t.Type)
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd, hclsyntax.TokenCQuote,
			hclsyntax.TokenCHeredoc:
			open = open[:max(0, len(open)-1)]
		case hclsyntax.TokenNewline:
			// A line ends an expression, but not within ( and [.
			if len(open) == 0 || open[len(open)-1] == hclsyntax.TokenOBrace {
				operators = 0
			}
		case hclsyntax.TokenTemplateControl:
			open = append(open, t.Type)
			operators++
		case hclsyntax.TokenBang, hclsyntax.TokenMinus, hclsyntax.TokenQuestion:
			operators++
		}
		if len(open) > maxNesting || operators > maxOperators {
			s.errorf(t.Range, "", "this nests too deeply")
			return false
		}
	}
	return true
}

// attributeRedefined is the one finding of the HCL parser after which the tree is whole.
const attributeRedefined = "Attribute redefined"

// placeInDetail finds the line in what HCL says of a second attribute: "... was already set at edge.hcl:2,3-10."
var placeInDetail = regexp.MustCompile(`:(\d+),\d+-\d+\.`)

// syntax takes over a finding of the HCL parser, in our words: what HCL calls an argument is an attribute everywhere else.
func (s *source) syntax(d *hcl.Diagnostic) {
	rng := hcl.Range{Filename: s.file, Start: hcl.InitialPos, End: hcl.InitialPos}
	if d.Subject != nil {
		rng = *d.Subject
	}
	ours := strings.NewReplacer("An argument", "An attribute", "an argument", "an attribute", "Argument", "Attribute", "argument", "attribute",
		"the language", "the configuration language")
	summary, hint := ours.Replace(d.Summary), strings.TrimSuffix(ours.Replace(d.Detail), ".")
	if r, n := utf8.DecodeRuneInString(summary); n > 0 {
		summary = string(unicode.ToLower(r)) + summary[n:]
	}
	if r, n := utf8.DecodeRuneInString(hint); n > 0 {
		hint = string(unicode.ToLower(r)) + hint[n:]
	}
	switch {
	case d.Summary == "Invalid multi-line string", d.Summary == "Unterminated template string", d.Summary == "Unterminated string literal":
		summary, hint = "this string has no end", `close it with " in the same line; a line break in it is \n`
	case d.Summary == attributeRedefined:
		summary = fmt.Sprintf("attribute %q is set twice", rng.SliceBytes(s.src))
		if m := placeInDetail.FindStringSubmatch(d.Detail); m != nil {
			hint = "the first is in line " + m[1]
		}
	case strings.Contains(summary, "template"), strings.Contains(summary, "interpolation"), strings.Contains(summary, "directive"):
		hint = templateHint
	default:
		if wrong, right := s.operator(rng); right != "" {
			if len(s.diags) > 0 && s.diags[len(s.diags)-1].Summary == wrong && s.diags[len(s.diags)-1].Pos == s.pos(rng) {
				return // the scanner and the parser stumble over the same one
			}
			summary, hint = wrong, right
		}
	}
	if d.Severity == hcl.DiagWarning {
		s.warnf(rng, hint, "%s", summary)
		return
	}
	s.errorf(rng, hint, "%s", summary)
}

func (s *source) errorf(rng hcl.Range, hint, format string, args ...any) {
	s.report(Error, rng, hint, fmt.Sprintf(format, args...))
}

func (s *source) warnf(rng hcl.Range, hint, format string, args ...any) {
	s.report(Warning, rng, hint, fmt.Sprintf(format, args...))
}

func (s *source) report(sev Severity, rng hcl.Range, hint, summary string) {
	d := Diagnostic{Severity: sev, Pos: s.pos(rng), Summary: summary, Hint: hint, Width: 1}
	if d.Pos.Line > len(s.lines) || d.Pos.Line == len(s.lines) && d.Pos.Line > 1 && len(s.lines[d.Pos.Line-1]) == 0 {
		// The end of a file whose last line is complete: point behind that line.
		d.Pos.Line = max(1, min(len(s.lines), d.Pos.Line)-1)
		d.Pos.Column = utf8.RuneCount(s.lines[d.Pos.Line-1]) + 1
	}
	d.Line = string(s.lines[d.Pos.Line-1])
	switch {
	case rng.End.Line == rng.Start.Line && rng.End.Column > rng.Start.Column:
		d.Width = rng.End.Column - rng.Start.Column
	case rng.End.Line > rng.Start.Line:
		d.Width = max(1, utf8.RuneCountInString(d.Line)-d.Pos.Column+1)
	}
	s.diags = append(s.diags, d)
}

func (s *source) pos(rng hcl.Range) Pos {
	return Pos{File: s.file, Line: max(1, rng.Start.Line), Column: max(1, rng.Start.Column)}
}
