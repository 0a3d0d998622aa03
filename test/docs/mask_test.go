package docs

import (
	"regexp"
	"strings"
)

// masks are what differs from run to run. They are applied to the page and to the output alike, so that pages can show real
// values. The order matters: a time contains what looks like spans.
var masks = []struct {
	find *regexp.Regexp
	put  string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?`), "TIME"},
	{regexp.MustCompile(`\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT`), "TIME"},
	{regexp.MustCompile(`skein1\.[\w-]+(\.\.\.)?`), "TOKEN"},
	{regexp.MustCompile(`\b[0-9a-f]{16}\b`), "ID"},
	{regexp.MustCompile(`\b(\d+(\.\d+)?(ns|µs|ms|m|s|h|d))+\b`), "SPAN"},
	{regexp.MustCompile(`just now|SPAN ago`), "AGO"},
	{regexp.MustCompile(`index \d+`), "index N"},
	{regexp.MustCompile(`epoch \d+\.\d+`), "epoch N"},
	{regexp.MustCompile(`lb\d runs it`), "NODE runs it"}, // in the order in which they do
	{regexp.MustCompile(`leader lb\d`), "leader NODE"},   // who won the election
	{regexp.MustCompile(`balancer +(leader|voter)\b`), "balancer VOTER"},
	{regexp.MustCompile(`(?m)^web\d$`), "SERVER"}, // whose turn it is
	{regexp.MustCompile(`[ \t]+`), " "},           // columns are as wide as what was masked
}

// demoMasks come on top for `skein demo`: no two performances have the same numbers, nor need the same nodes hold the address.
var demoMasks = []struct {
	find *regexp.Regexp
	put  string
}{
	{regexp.MustCompile(`(?m)^.* requests/s .*\n`), ""}, // the live line
	{regexp.MustCompile(` \([^)\n]* (refused|reset|timeout|eof|other|status)[^)\n]*\)`), ""},
	{regexp.MustCompile(`\d+(\.\d+)?`), "N"},
	{regexp.MustCompile(`N ms`), "N"},
}

// masked is text in the form in which it is compared.
func masked(text string, demo bool) string {
	for _, m := range masks {
		text = m.find.ReplaceAllString(text, m.put)
	}
	if demo {
		for _, m := range demoMasks {
			text = m.find.ReplaceAllString(text, m.put)
		}
	}
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n")
}

// fits reports whether got is what want shows, both masked. A line of want that is "..." stands for any lines.
func fits(want, got string) bool {
	parts := strings.Split("\n"+want+"\n", "\n...\n")
	rest := "\n" + got + "\n"
	for i, p := range parts {
		switch {
		case i == 0:
			if !strings.HasPrefix(rest, p) {
				return false
			}
			rest = rest[len(p):]
			if len(parts) == 1 && rest != "" {
				return false
			}
			rest = "\n" + rest
			continue
		case i == len(parts)-1:
			return p == "" || strings.HasSuffix(rest, "\n"+p)
		}
		at := strings.Index(rest, "\n"+p+"\n")
		if at < 0 {
			return false
		}
		rest = rest[at+len(p)+1:]
	}
	return true
}
