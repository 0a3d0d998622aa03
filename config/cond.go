package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"unicode"
)

// Cond is the type-checked tree of a `when` condition. engine/plan compiles it to a closure; nothing evaluates it directly.
type Cond struct {
	Op   CondOp
	Args []*Cond // of And, Or, Not

	// Of the comparisons: the value of Left is tested against what follows.
	Left  Operand
	Value string         // Equal, StartsWith; InList: the list's name
	Set   []string       // OneOf
	CIDRs []netip.Prefix // InCIDR
	Regex *regexp.Regexp // Matches
	Pos   Pos
}

// CondOp is what a Cond does.
type CondOp uint8

const (
	And CondOp = iota + 1
	Or
	Not
	Equal
	OneOf
	InCIDR
	InList
	StartsWith
	Matches
)

// Operand is a value taken from the request.
type Operand struct {
	Field Field
	Name  string // of Header (in lower case), Query, Cookie
	Lower bool   // lower(...)
}

// Field is a part of a request that a condition can look at.
type Field uint8

const (
	FieldMethod Field = iota + 1
	FieldHost         // lower case, no port
	FieldPath         // as received, without the query
	FieldHeader       // the first of that name; "" when absent
	FieldQuery        // percent-decoded; "" when absent
	FieldCookie
	FieldClient // the client's address; only InCIDR, InList and Equal look at it
	FieldSNI    // the name that a TLS client asked for, in lower case; "" without TLS
)

func (f Field) String() string {
	switch f {
	case FieldMethod:
		return "method"
	case FieldHost:
		return "host"
	case FieldPath:
		return "path"
	case FieldHeader:
		return "header"
	case FieldQuery:
		return "query"
	case FieldCookie:
		return "cookie"
	case FieldClient:
		return "client"
	case FieldSNI:
		return "sni"
	}
	return "unknown"
}

// String writes o as in a configuration.
func (o Operand) String() string {
	s := o.Field.String()
	switch o.Field {
	case FieldHeader, FieldQuery, FieldCookie:
		s += "[" + quote(o.Name) + "]"
	}
	if o.Lower {
		s = "lower(" + s + ")"
	}
	return s
}

// String writes c as in a configuration: Parse reads it back. Two conditions with the same String are the same.
func (c *Cond) String() string {
	switch c.Op {
	case And, Or:
		word := " && "
		if c.Op == Or {
			word = " || "
		}
		var parts []string
		for _, a := range c.Args {
			if a.Op == And || a.Op == Or {
				parts = append(parts, "("+a.String()+")")
			} else {
				parts = append(parts, a.String())
			}
		}
		return strings.Join(parts, word)
	case Not:
		if a := c.Args[0]; a.Op == Equal {
			return a.Left.String() + " != " + quote(a.Value)
		}
		return "!(" + c.Args[0].String() + ")"
	case Equal:
		return c.Left.String() + " == " + quote(c.Value)
	case OneOf:
		return "one_of(" + c.Left.String() + ", " + quoteAll(c.Set) + ")"
	case InCIDR:
		var nets []string
		for _, n := range c.CIDRs {
			nets = append(nets, n.String())
		}
		return "in_cidr(" + c.Left.String() + ", " + quoteAll(nets) + ")"
	case InList:
		return "in_list(" + c.Left.String() + ", " + quote(c.Value) + ")"
	case StartsWith:
		return "starts_with(" + c.Left.String() + ", " + quote(c.Value) + ")"
	case Matches:
		return "matches(" + c.Left.String() + ", " + quote(c.Regex.String()) + ")"
	}
	return "unknown"
}

// quote writes s as an HCL string.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case (r == '$' || r == '%') && strings.HasPrefix(s[i+1:], "{"):
			b.WriteRune(r)
			b.WriteRune(r)
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func quoteAll(list []string) string {
	var b strings.Builder
	for i, s := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(s))
	}
	return "[" + b.String() + "]"
}
