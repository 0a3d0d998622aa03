package config

import (
	"bytes"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Format gives the canonical form of a file: two blanks of indentation, equals signs of neighbours in one column, at most one
// empty line, none at the edges of a block, one line end at the end. It changes neither order nor comments nor values, and needs
// correct syntax but not a correct configuration. The result is nil exactly when the syntax is wrong.
func Format(file string, src []byte) ([]byte, Diagnostics) {
	s := newSource(file, src)
	if s.parse() == nil {
		s.diags.sort()
		return nil, s.diags
	}
	out := src
	// The layout of one pass can change what the next one aligns; two or three reach the end.
	for range 8 {
		next := hclwrite.Format(squeeze(out))
		if bytes.Equal(next, out) {
			break
		}
		out = next
	}
	return append([]byte{}, out...), nil
}

// squeeze takes away surplus empty lines and carriage returns, outside of strings.
func squeeze(src []byte) []byte {
	tokens, _ := hclsyntax.LexConfig(src, "", hcl.InitialPos)
	var out bytes.Buffer
	at := 0       // src up to here is written
	newlines := 2 // line ends at the end of out; the beginning counts as an empty line
	for i, t := range tokens {
		between := src[at:t.Range.Start.Byte]
		at = t.Range.End.Byte
		switch t.Type {
		case hclsyntax.TokenNewline:
			if newlines < 2 && !(newlines == 1 && edge(tokens, i)) {
				out.WriteByte('\n')
				newlines++
			}
			continue
		case hclsyntax.TokenEOF:
			continue
		}
		if newlines == 0 { // else it is indentation, which is made anew
			out.Write(between)
		}
		newlines = 0
		text := t.Bytes
		if t.Type == hclsyntax.TokenComment && bytes.HasSuffix(text, []byte("\n")) {
			// A comment of one line holds its line end.
			out.Write(bytes.TrimRight(text, " \t\r\n"))
			out.WriteByte('\n')
			newlines = 1
			continue
		}
		out.Write(text)
	}
	text := bytes.TrimRight(out.Bytes(), "\n")
	if len(text) == 0 {
		return nil
	}
	return append(text, '\n')
}

// edge tells whether the line end tokens[i] belongs to an empty line behind an opening bracket or before a closing one.
func edge(tokens hclsyntax.Tokens, i int) bool {
	before := i - 1
	for before >= 0 && tokens[before].Type == hclsyntax.TokenNewline {
		before--
	}
	after := i + 1
	for after < len(tokens) && tokens[after].Type == hclsyntax.TokenNewline {
		after++
	}
	opens := before >= 0 && (tokens[before].Type == hclsyntax.TokenOBrace || tokens[before].Type == hclsyntax.TokenOBrack)
	closes := after < len(tokens) && (tokens[after].Type == hclsyntax.TokenCBrace || tokens[after].Type == hclsyntax.TokenCBrack)
	return opens || closes
}
