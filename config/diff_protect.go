package config

import "fmt"

func describeMinRate(f *Frontend) string {
	if f.Mode == TCP {
		return ""
	}
	r := f.MinRate
	return fmt.Sprintf("request=%d response=%d grace=%s", r.Request, r.Response, shortDuration(r.Grace))
}

func describeList(l *List) object {
	n := fmt.Sprint(len(l.CIDRs), " networks")
	if len(l.CIDRs) == 1 {
		n = "1 network"
	}
	all := join(l.CIDRs)
	if len(all) > 200 {
		all = n + ", " + brief(all)
	}
	return object{"list " + quote(l.Name), n, []attribute{{"cidrs", all}}}
}
