package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// A condition is an HCL expression that is never evaluated: its tree is type-checked and turned into a Cond.

const (
	maxTerms  = 256  // comparisons in one condition
	maxRegexp = 1024 // bytes of a regular expression
)

var (
	condFields    = []string{"method", "host", "path", "query", "header", "cookie", "client", "sni"}
	condFunctions = []string{"one_of", "in_cidr", "in_list", "starts_with", "matches", "lower"}
)

// condition reads a `when`. It returns nil when it reported something.
func (p *parser) condition(e hclsyntax.Expression) *Cond {
	if v, isString, ok := p.literal(e); isString {
		if ok {
			p.errorf(e.Range(), "write it without the quotes around it: when = "+v, "a condition is an expression, not a string")
		}
		return nil
	}
	terms := 0
	return p.cond(e, &terms)
}

func (p *parser) cond(e hclsyntax.Expression, terms *int) *Cond {
	switch e := unwrap(e).(type) {
	case *hclsyntax.BinaryOpExpr:
		switch e.Op {
		case hclsyntax.OpLogicalAnd:
			return p.chain(e, And, terms)
		case hclsyntax.OpLogicalOr:
			return p.chain(e, Or, terms)
		case hclsyntax.OpEqual, hclsyntax.OpNotEqual:
			c := p.equal(e, terms)
			if c != nil && e.Op == hclsyntax.OpNotEqual {
				return not(c, c.Pos)
			}
			return c
		}
		p.errorf(e.Range(), "conditions have ==, !=, &&, || and !", "a condition cannot calculate or order")
	case *hclsyntax.UnaryOpExpr:
		if e.Op != hclsyntax.OpLogicalNot {
			p.errorf(e.Range(), "conditions have ==, !=, &&, || and !", "a condition cannot calculate")
			return nil
		}
		if c := p.cond(e.Val, terms); c != nil {
			return not(c, p.pos(e.Range()))
		}
	case *hclsyntax.FunctionCallExpr:
		return p.call(e, terms)
	case *hclsyntax.ScopeTraversalExpr, *hclsyntax.IndexExpr, *hclsyntax.RelativeTraversalExpr:
		if o, ok := p.operand(e); ok {
			if o.Field == FieldClient {
				p.errorf(e.Range(), `write in_cidr(client, ["198.51.100.0/24"])`, "client alone is not a condition")
			} else {
				p.errorf(e.Range(), fmt.Sprintf(`compare it: %s != ""`, o), "%s alone is not a condition", o)
			}
		}
	case *hclsyntax.LiteralValueExpr:
		if !e.Val.IsNull() && e.Val.Type() == cty.Bool {
			p.errorf(e.Range(), "a route without conditions takes every request", "a condition looks at the request, and %v does not", e.Val.True())
			return nil
		}
		p.errorf(e.Range(), `compare it with a part of the request: method == "GET"`, "%s is not a condition", describe(e))
	case *hclsyntax.TemplateExpr, *hclsyntax.TemplateWrapExpr:
		if v, _, ok := p.literal(e); ok {
			p.errorf(e.Range(), fmt.Sprintf("compare it with a part of the request: method == %q", v), "a string is not a condition")
		}
	case *hclsyntax.ConditionalExpr:
		p.errorf(e.Range(), "write it with && and ||", `a condition has no "?"`)
	default:
		p.errorf(e.Range(), `write as in header["x-canary"] == "1" && method != "POST"`, "%s is not a condition", describe(e))
	}
	return nil
}

// not turns c round; what is turned round twice is what it was.
func not(c *Cond, pos Pos) *Cond {
	if c.Op == Not {
		return c.Args[0]
	}
	return &Cond{Op: Not, Args: []*Cond{c}, Pos: pos}
}

// chain reads a && b && c (or ||) into one Cond. HCL nests them to the left, as deep as the chain is long, hence the loop.
func (p *parser) chain(e *hclsyntax.BinaryOpExpr, op CondOp, terms *int) *Cond {
	var sides []hclsyntax.Expression
	hclOp := e.Op
	at := e.Range()
	for {
		sides = append(sides, e.RHS)
		left, ok := unwrap(e.LHS).(*hclsyntax.BinaryOpExpr)
		if !ok || left.Op != hclOp {
			sides = append(sides, e.LHS)
			break
		}
		e = left
	}
	slices.Reverse(sides)
	c := &Cond{Op: op, Pos: p.pos(at)}
	good := true
	for _, side := range sides {
		a := p.cond(side, terms)
		switch {
		case a == nil:
			good = false
			if *terms > maxTerms {
				return nil
			}
		case a.Op == op:
			c.Args = append(c.Args, a.Args...)
		default:
			c.Args = append(c.Args, a)
		}
	}
	if !good {
		return nil
	}
	return c
}

// term counts a comparison and makes its Cond.
func (p *parser) term(rng hcl.Range, op CondOp, left Operand, terms *int) *Cond {
	if *terms++; *terms > maxTerms {
		if *terms == maxTerms+1 {
			p.errorf(rng, "for many values of one thing write one_of(...)", "a condition has at most %d comparisons", maxTerms)
		}
		return nil
	}
	return &Cond{Op: op, Left: left, Pos: p.pos(rng)}
}

func (p *parser) equal(e *hclsyntax.BinaryOpExpr, terms *int) *Cond {
	left, right := e.LHS, e.RHS
	if constant(left) && !constant(right) {
		left, right = right, left
	}
	o, ok := p.operand(left)
	if !ok {
		return nil
	}
	if !constant(right) {
		if _, ok := p.operand(right); ok {
			p.errorf(right.Range(), `write as in header["x-canary"] == "1"`, "the other side of %s must be a string, not %s", o, describe(right))
		}
		return nil
	}
	c := p.term(e.Range(), Equal, o, terms)
	v, ok := p.str(right, "a comparison")
	if !ok || c == nil {
		return nil
	}
	c.Value, ok = p.constantOf(o, text{v, right.Range()}, Equal)
	if !ok {
		return nil
	}
	return c
}

// constant tells whether an expression is a literal.
func constant(e hclsyntax.Expression) bool {
	switch unwrap(e).(type) {
	case *hclsyntax.LiteralValueExpr, *hclsyntax.TemplateExpr, *hclsyntax.TemplateWrapExpr:
		return true
	}
	return false
}

// constantOf checks what an operand is compared with and brings it to the operand's form. What could never be equal is reported.
func (p *parser) constantOf(o Operand, t text, op CondOp) (string, bool) {
	switch {
	case o.Field == FieldClient:
		a, err := netip.ParseAddr(t.string)
		if err != nil {
			hint := `write an address, or in_cidr(client, ["198.51.100.0/24"]) for a network`
			p.errorf(t.rng, hint, "client is an address, and %q is not", t.string)
			return "", false
		}
		return a.Unmap().String(), true
	case o.Field == FieldHost, o.Field == FieldSNI:
		return strings.ToLower(t.string), true // names do not differ by case
	case o.Field == FieldMethod && op != StartsWith && t.string != "" && !o.Lower:
		return t.string, p.method(t)
	case o.Lower && strings.ToLower(t.string) != t.string:
		p.errorf(t.rng, fmt.Sprintf("write %q", strings.ToLower(t.string)), "%s is in lower case and can never be %q", o, t.string)
		return "", false
	case o.Field == FieldPath && op == Equal && !o.Lower && !strings.HasPrefix(t.string, "/") && t.string != "*":
		p.errorf(t.rng, fmt.Sprintf("write %q", "/"+t.string), "a path begins with a slash and can never be %q", t.string)
		return "", false
	case o.Field == FieldPath && strings.HasSuffix(t.string, "/*") && op != StartsWith:
		p.errorf(t.rng, fmt.Sprintf("write starts_with(path, %q)", strings.TrimSuffix(t.string, "*")), `"*" means nothing in a condition`)
		return "", false
	}
	return t.string, true
}

func (p *parser) call(e *hclsyntax.FunctionCallExpr, terms *int) *Cond {
	usage := map[string]string{
		"one_of":      `one_of(method, ["GET", "HEAD"])`,
		"in_cidr":     `in_cidr(client, ["198.51.100.0/24"])`,
		"in_list":     `in_list(client, "office")`,
		"starts_with": `starts_with(path, "/v1/")`,
		"matches":     `matches(path, "^/v[0-9]+/")`,
	}
	if e.Name == "lower" {
		p.errorf(e.Range(), `compare it: lower(header["x"]) == "a"`, "lower() alone is not a condition")
		return nil
	}
	example, known := usage[e.Name]
	if o, foreign := operators[e.Name]; foreign {
		p.errorf(e.NameRange, o.right, "%s", o.wrong)
		return nil
	}
	if !known {
		p.errorf(e.NameRange, didYouMean(e.Name, condFunctions, "there are"), "unknown function %s()", e.Name)
		return nil
	}
	if len(e.Args) != 2 || e.ExpandFinal {
		p.errorf(e.Range(), "write as in "+example, "%s() takes two values", e.Name)
		return nil
	}
	o, ok := p.operand(e.Args[0])
	if !ok {
		return nil
	}
	arg := e.Args[1]
	if isClient := o.Field == FieldClient; isClient != (e.Name == "in_cidr" || e.Name == "in_list") {
		hint := "write as in " + example
		if isClient {
			hint = "write as in " + usage["in_cidr"]
		}
		p.errorf(e.Args[0].Range(), hint, "%s() cannot look at %s", e.Name, o)
		return nil
	}
	var c *Cond
	switch e.Name {
	case "one_of":
		c = p.term(e.Range(), OneOf, o, terms)
		for _, t := range p.strs(arg, "one_of()") {
			v, good := p.constantOf(o, t, OneOf)
			ok = ok && good
			if c != nil {
				c.Set = append(c.Set, v)
			}
		}
		ok = ok && c != nil && len(c.Set) > 0
	case "in_cidr":
		c = p.term(e.Range(), InCIDR, o, terms)
		for _, t := range p.strs(arg, "in_cidr()") {
			n, good := p.network(t)
			ok = ok && good
			if c != nil {
				c.CIDRs = append(c.CIDRs, n)
			}
		}
		ok = ok && c != nil && len(c.CIDRs) > 0
	case "in_list":
		c = p.term(e.Range(), InList, o, terms)
		v, good := p.str(arg, "in_list()")
		if ok = good && c != nil; ok {
			c.Value = v
			p.refer(toList, text{v, arg.Range()}, "in_list()")
		}
	case "starts_with":
		c = p.term(e.Range(), StartsWith, o, terms)
		v, good := p.str(arg, "starts_with()")
		if good && v == "" {
			p.errorf(arg.Range(), "", "everything starts with the empty string")
			return nil
		}
		if good {
			v, good = p.constantOf(o, text{v, arg.Range()}, StartsWith)
		}
		if ok = good && c != nil; ok {
			c.Value = v
		}
	case "matches":
		c = p.term(e.Range(), Matches, o, terms)
		v, good := p.str(arg, "matches()")
		if ok = good && c != nil; ok {
			c.Regex, ok = p.regex(text{v, arg.Range()})
		}
	}
	if !ok {
		return nil
	}
	return c
}

func (p *parser) regex(t text) (*regexp.Regexp, bool) {
	if len(t.string) > maxRegexp {
		p.errorf(t.rng, "", "a regular expression has at most %d bytes", maxRegexp)
		return nil, false
	}
	r, err := regexp.Compile(t.string)
	if err != nil {
		why := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
		hint := "the syntax is RE2's; in a string, write a backslash twice"
		if strings.Contains(why, "Perl") || strings.Contains(t.string, "(?=") || strings.Contains(t.string, "(?!") {
			hint = "the syntax is RE2's: it has no look-around and no back references, so that no request can make it slow"
		}
		p.errorf(t.rng, hint, "the regular expression is wrong: %s", why)
		return nil, false
	}
	return r, true
}

// network reads a CIDR, or one address.
func (p *parser) network(t text) (netip.Prefix, bool) {
	n, err := netip.ParsePrefix(t.string)
	if err != nil {
		if a, err := netip.ParseAddr(t.string); err == nil && a.Zone() == "" && !a.Is4In6() {
			return netip.PrefixFrom(a, a.BitLen()), true
		}
		p.errorf(t.rng, `write as in "198.51.100.0/24"`, "%q is not a network", t.string)
		return n, false
	}
	if n.Addr().Is4In6() {
		p.errorf(t.rng, "write the IPv4 network itself", "%q is an IPv4 network in IPv6 clothes", t.string)
		return n, false
	}
	if n.Masked() != n {
		p.errorf(t.rng, fmt.Sprintf("write %q for the network, or %q for the one address", n.Masked(), n.Addr()),
			"%q has bits behind its length", t.string)
		return n, false
	}
	return n, true
}

// operand reads a part of a request: method, header["x"], lower(path), ...
func (p *parser) operand(e hclsyntax.Expression) (Operand, bool) {
	switch e := unwrap(e).(type) {
	case *hclsyntax.FunctionCallExpr:
		return p.lower(e)
	case *hclsyntax.ScopeTraversalExpr:
		return p.traversal(e)
	case *hclsyntax.IndexExpr:
		p.errorf(e.Key.Range(), `write a name in quotes, as in header["x-canary"]`, "a name must be a string, not %s", describe(e.Key))
		return Operand{}, false
	}
	if constant(e) {
		p.errorf(e.Range(), `write as in header["x-canary"] == "1"`, "%s is not a part of a request", describe(e))
	} else {
		p.errorf(e.Range(), "the parts of a request are "+strings.Join(condFields, ", "), "%s is not a part of a request", describe(e))
	}
	return Operand{}, false
}

func (p *parser) lower(e *hclsyntax.FunctionCallExpr) (Operand, bool) {
	if e.Name != "lower" {
		if slices.Contains(condFunctions, e.Name) {
			p.errorf(e.Range(), "write it alone, or with ! in front", "%s() is true or false, not a part of a request", e.Name)
		} else {
			p.errorf(e.NameRange, didYouMean(e.Name, condFunctions, "there are"), "unknown function %s()", e.Name)
		}
		return Operand{}, false
	}
	if len(e.Args) != 1 || e.ExpandFinal {
		p.errorf(e.Range(), `write as in lower(header["x"]) == "a"`, "lower() takes one value")
		return Operand{}, false
	}
	o, ok := p.operand(e.Args[0])
	if ok && o.Field == FieldClient {
		p.errorf(e.Range(), "leave lower() out", "client is an address and has no case")
		return o, false
	}
	o.Lower = o.Field != FieldHost && o.Field != FieldSNI // which are in lower case already
	return o, ok
}

func (p *parser) traversal(e *hclsyntax.ScopeTraversalExpr) (Operand, bool) {
	var none Operand
	root := e.Traversal.RootName()
	rest := e.Traversal[1:]
	i := slices.Index(condFields, root)
	if i < 0 {
		hint := didYouMean(root, condFields, "the parts of a request are")
		p.errorf(e.Traversal[0].SourceRange(), hint, "unknown word %s", root)
		return none, false
	}
	o := Operand{Field: [...]Field{FieldMethod, FieldHost, FieldPath, FieldQuery, FieldHeader, FieldCookie, FieldClient, FieldSNI}[i]}
	if o.Field != FieldHeader && o.Field != FieldQuery && o.Field != FieldCookie {
		if len(rest) > 0 {
			p.errorf(e.Range(), "write "+root, "%s has no parts", root)
			return none, false
		}
		return o, true
	}
	if len(rest) != 1 {
		p.errorf(e.Range(), fmt.Sprintf("write as in %s[%q]", root, "x-name"), "%s needs one name", root)
		return none, false
	}
	switch step := rest[0].(type) {
	case hcl.TraverseAttr:
		p.errorf(e.Range(), fmt.Sprintf("write %s[%q]", root, step.Name), "%s has its name in brackets", root)
		return none, false
	case hcl.TraverseIndex:
		if step.Key.IsNull() || step.Key.Type() != cty.String {
			p.errorf(step.SrcRange, fmt.Sprintf("write as in %s[%q]", root, "x-name"), "a name must be a string")
			return none, false
		}
		o.Name = step.Key.AsString()
		name := text{o.Name, step.SrcRange}
		switch o.Field {
		case FieldHeader:
			o.Name = strings.ToLower(o.Name)
			return o, p.headerOperand(name)
		case FieldCookie:
			return o, p.cookieName(name)
		}
		return o, true
	}
	p.errorf(e.Range(), fmt.Sprintf("write as in %s[%q]", root, "x-name"), "%s needs one name", root)
	return none, false
}
