package config

import (
	"net/netip"
	"regexp"
)

// Cond is the type-checked tree of a `when` condition. engine/plan compiles it to a closure; nothing evaluates it directly.
type Cond struct {
	Op   CondOp
	Args []*Cond // of And, Or, Not

	// Of the comparisons: the value of Left is tested against what follows.
	Left  Operand
	Value string         // Equal, StartsWith
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
	StartsWith
	Matches
)

// Operand is a value taken from the request.
type Operand struct {
	Field Field
	Name  string // of Header, Query, Cookie
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
	FieldClient // the client's address; only InCIDR and Equal look at it
)
