package config

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// The functions of this file read literal values from the syntax tree. Nothing is ever evaluated: there are no variables, so an
// expression that is not a literal is a mistake, and a mistake is best explained by what was written.

// text is a string with the place where it was written.
type text struct {
	string
	rng hcl.Range
}

// unwrap takes the parentheses off.
func unwrap(e hclsyntax.Expression) hclsyntax.Expression {
	for {
		p, ok := e.(*hclsyntax.ParenthesesExpr)
		if !ok {
			return e
		}
		e = p.Expression
	}
}

// describe says what an expression is, for "wants a string, not ...".
func describe(e hclsyntax.Expression) string {
	switch e := unwrap(e).(type) {
	case *hclsyntax.TemplateExpr, *hclsyntax.TemplateWrapExpr:
		return "a string"
	case *hclsyntax.LiteralValueExpr:
		switch {
		case e.Val.IsNull():
			return "null"
		case e.Val.Type() == cty.Number:
			return "a number"
		case e.Val.Type() == cty.Bool:
			return "true or false"
		}
	case *hclsyntax.UnaryOpExpr:
		if _, ok := number(e); ok {
			return "a number"
		}
	case *hclsyntax.TupleConsExpr:
		return "a list"
	case *hclsyntax.ObjectConsExpr:
		return "a map"
	case *hclsyntax.ScopeTraversalExpr:
		if len(e.Traversal) == 1 {
			return fmt.Sprintf("the bare word %s", e.Traversal.RootName())
		}
		return "a reference"
	case *hclsyntax.FunctionCallExpr:
		return fmt.Sprintf("a call of %s()", e.Name)
	}
	return "an expression"
}

// templateHint explains what HCL makes of ${ and %{.
const templateHint = `"${" and "%{" start a template in HCL; for the characters themselves write "$${" and "%%{"`

// literal returns the string that e is. It reports templates; for anything that is no string it returns false in silence.
func (s *source) literal(e hclsyntax.Expression) (v string, isString, ok bool) {
	switch e := unwrap(e).(type) {
	case *hclsyntax.TemplateExpr:
		var all strings.Builder
		for _, part := range e.Parts {
			l, isLiteral := part.(*hclsyntax.LiteralValueExpr)
			if !isLiteral || l.Val.IsNull() || l.Val.Type() != cty.String {
				s.errorf(part.Range(), templateHint, "a string cannot contain a template")
				return "", true, false
			}
			all.WriteString(l.Val.AsString())
		}
		return all.String(), true, true
	case *hclsyntax.TemplateWrapExpr:
		s.errorf(e.Range(), templateHint, "a string cannot contain a template")
		return "", true, false
	case *hclsyntax.LiteralValueExpr:
		if !e.Val.IsNull() && e.Val.Type() == cty.String {
			return e.Val.AsString(), true, true
		}
	}
	return "", false, false
}

// str reads a string.
func (s *source) str(e hclsyntax.Expression, what string) (string, bool) {
	v, isString, ok := s.literal(e)
	if !isString {
		hint := ""
		switch u := unwrap(e).(type) {
		case *hclsyntax.FunctionCallExpr:
			if u.Name == "secret" {
				s.unsupported(e.Range(), "secret()", "nothing in this version needs one")
				return "", false
			}
			hint = "functions stand only in conditions: when = ..."
		case *hclsyntax.ScopeTraversalExpr:
			if len(u.Traversal) == 1 {
				hint = fmt.Sprintf("write it in quotes: %q", u.Traversal.RootName())
			}
		case *hclsyntax.LiteralValueExpr:
			if _, ok := number(u); ok {
				hint = fmt.Sprintf("write it in quotes: %q", e.Range().SliceBytes(s.src))
			}
		}
		s.errorf(e.Range(), hint, "%s wants a string, not %s", what, describe(e))
	}
	return v, ok
}

// strs reads a string or a list of strings. An empty list is reported: it never says what it seems to say.
func (s *source) strs(e hclsyntax.Expression, what string) []text {
	list, ok := unwrap(e).(*hclsyntax.TupleConsExpr)
	if !ok {
		if _, isMap := unwrap(e).(*hclsyntax.ObjectConsExpr); isMap {
			s.errorf(e.Range(), "", "%s wants a string or a list of strings, not a map", what)
			return nil
		}
		if v, ok := s.str(e, what); ok {
			return []text{{v, e.Range()}}
		}
		return nil
	}
	if len(list.Exprs) == 0 {
		s.errorf(e.Range(), "leave it out, or write at least one", "%s is an empty list", what)
	}
	var all []text
	seen := map[string]bool{}
	for _, x := range list.Exprs {
		v, ok := s.str(x, what)
		if ok && seen[v] {
			s.errorf(x.Range(), "", "%s has %q twice", what, v)
			continue
		}
		if ok {
			all = append(all, text{v, x.Range()})
			seen[v] = true
		}
	}
	return all
}

// number returns the number that e is.
func number(e hclsyntax.Expression) (*big.Float, bool) {
	switch e := unwrap(e).(type) {
	case *hclsyntax.LiteralValueExpr:
		if !e.Val.IsNull() && e.Val.Type() == cty.Number {
			return e.Val.AsBigFloat(), true
		}
	case *hclsyntax.UnaryOpExpr:
		if l, ok := unwrap(e.Val).(*hclsyntax.LiteralValueExpr); ok && e.Op == hclsyntax.OpNegate {
			if f, ok := number(l); ok {
				return new(big.Float).Neg(f), true
			}
		}
	}
	return nil, false
}

// integer reads a whole number from low to high.
func (s *source) integer(e hclsyntax.Expression, what string, low, high int) (int, bool) {
	f, ok := number(e)
	if !ok {
		hint := ""
		if v, _, ok := s.literal(e); ok {
			if _, err := strconv.Atoi(v); err == nil {
				hint = "write it without quotes: " + v
			}
		}
		s.errorf(e.Range(), hint, "%s wants a number, not %s", what, describe(e))
		return 0, false
	}
	n, accuracy := f.Int64()
	if accuracy != big.Exact {
		if f.IsInt() || f.IsInf() {
			s.errorf(e.Range(), "", "%s must be from %d to %d", what, low, high)
		} else {
			s.errorf(e.Range(), "", "%s wants a whole number", what)
		}
		return 0, false
	}
	if n < int64(low) || n > int64(high) {
		s.errorf(e.Range(), "", "%s must be from %d to %d, not %d", what, low, high, n)
		return 0, false
	}
	return int(n), true
}

// boolean reads true or false.
func (s *source) boolean(e hclsyntax.Expression, what string) (v, ok bool) {
	if l, ok := unwrap(e).(*hclsyntax.LiteralValueExpr); ok && !l.Val.IsNull() && l.Val.Type() == cty.Bool {
		return l.Val.True(), true
	}
	hint := ""
	if v, _, ok := s.literal(e); ok && (v == "true" || v == "false") {
		hint = "write it without quotes: " + v
	}
	s.errorf(e.Range(), hint, "%s wants true or false, not %s", what, describe(e))
	return false, false
}

// duration reads a time such as "500ms", "2s" or "1h30m", from low to high.
func (s *source) duration(e hclsyntax.Expression, what string, low, high time.Duration) (time.Duration, bool) {
	v, isString, ok := s.literal(e)
	if !isString {
		hint := `write a number and its unit, as in "500ms", "2s", "30m"`
		if _, ok := number(e); ok {
			n := string(e.Range().SliceBytes(s.src))
			hint = fmt.Sprintf("write the unit too: %q, or %q", n+"s", n+"ms")
		}
		s.errorf(e.Range(), hint, "%s wants a duration, not %s", what, describe(e))
		return 0, false
	}
	if !ok {
		return 0, false
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		hint := `write a number and its unit, as in "500ms", "2s", "30m"`
		if n, err := strconv.ParseUint(v, 10, 32); err == nil {
			hint = fmt.Sprintf(`write the unit too: "%ds", or "%dms"`, n, n)
		} else if n, err := strconv.ParseUint(strings.TrimSuffix(v, "d"), 10, 16); err == nil && strings.HasSuffix(v, "d") {
			hint = fmt.Sprintf("the longest unit is the hour: %q", fmt.Sprint(n*24, "h"))
		}
		s.errorf(e.Range(), hint, "%q is not a duration", v)
		return 0, false
	}
	if d < low || d > high {
		s.errorf(e.Range(), "", "%s must be from %s to %s, not %s", what, shortDuration(low), shortDuration(high), v)
		return 0, false
	}
	return d, true
}

// shortDuration writes a duration without the zeros that String adds: "1m", not "1m0s".
func shortDuration(d time.Duration) string {
	v := d.String()
	if d >= time.Minute && strings.HasSuffix(v, "m0s") {
		v = strings.TrimSuffix(v, "0s")
		if d >= time.Hour && strings.HasSuffix(v, "h0m") {
			v = strings.TrimSuffix(v, "0m")
		}
	}
	return v
}

// entry is one element of a map.
type entry struct{ key, value text }

// strMap reads a map of strings, in written order.
func (s *source) strMap(e hclsyntax.Expression, what string) []entry {
	m, ok := unwrap(e).(*hclsyntax.ObjectConsExpr)
	if !ok {
		s.errorf(e.Range(), `write { "x-name" = "value" }`, "%s wants a map, not %s", what, describe(e))
		return nil
	}
	if len(m.Items) == 0 {
		s.errorf(e.Range(), "leave it out, or write at least one", "%s is an empty map", what)
	}
	var all []entry
	for _, item := range m.Items {
		key, ok := s.key(item.KeyExpr)
		if !ok {
			continue
		}
		if v, ok := s.str(item.ValueExpr, fmt.Sprintf("%q of %s", key, what)); ok {
			all = append(all, entry{text{key, item.KeyExpr.Range()}, text{v, item.ValueExpr.Range()}})
		}
	}
	return all
}

// key reads the key of a map's element: a string, or a bare word.
func (s *source) key(e hclsyntax.Expression) (string, bool) {
	if k, ok := e.(*hclsyntax.ObjectConsKeyExpr); ok {
		if word := hcl.ExprAsKeyword(k.Wrapped); word != "" && !k.ForceNonLiteral {
			return word, true
		}
		e = k.Wrapped
	}
	return s.str(e, "the key of a map")
}

// oneOf reads a string that is one of the given words.
func (s *source) oneOf(e hclsyntax.Expression, what string, words ...string) (string, bool) {
	v, ok := s.str(e, what)
	if !ok {
		return "", false
	}
	for _, w := range words {
		if v == w {
			return v, true
		}
	}
	s.errorf(e.Range(), didYouMean(v, words, what+" is one of"), "%q is not a value of %s", v, what)
	return "", false
}
