package config

import (
	"regexp"

	"github.com/hashicorp/hcl/v2"
)

// operators are what other languages write in a condition, by what the HCL parser stumbles over, with what to write here.
var operators = map[string]struct{ wrong, right string }{
	"=":   {`"=" does not compare`, `write two equals signs: path == "/v1"`},
	"~":   {`"~" is no operator`, `write matches(path, "^/v[0-9]+/")`},
	"and": {`"and" is no operator`, "write && in its place"},
	"or":  {`"or" is no operator`, "write || in its place"},
	"not": {`"not" is no operator`, `write method != "GET", or ! in front of parentheses or a function: !starts_with(path, "/v1/")`},
	"in":  {`"in" is no operator`, `write one_of(method, ["GET", "HEAD"]), or in_cidr(client, ["198.51.100.0/24"])`},
}

var (
	attributeSign = regexp.MustCompile(`([\w-]+)[ \t]*=(?:[^=]|$)`) // of `name = ...`, not of a comparison
	afterNot      = regexp.MustCompile(`\bnot[ \t]+$`)              // HCL takes it for an operand, and stumbles over what it negates
)

// operatorLook is how far before its mistake the beginning of a condition is looked for.
const operatorLook = 512

// operator explains a finding of the HCL parser in a condition at rng that is an operator of another language; right is "" when it is
// something else.
func (s *source) operator(rng hcl.Range) (wrong, right string) {
	if !rng.CanSliceBytes(s.src) {
		return "", ""
	}
	before := s.src[max(0, rng.Start.Byte-operatorLook):rng.Start.Byte]
	o, known := operators[string(rng.SliceBytes(s.src))]
	if !known && afterNot.Match(before) {
		o, known = operators["not"], true
	}
	if !known {
		return "", ""
	}
	signs := attributeSign.FindAllSubmatch(before, -1)
	if len(signs) == 0 || string(signs[len(signs)-1][1]) != "when" {
		return "", ""
	}
	return o.wrong, o.right
}
