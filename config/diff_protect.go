package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

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

func describeCaps(f *Frontend) []attribute {
	c := f.Caps
	attrs := []attribute{{"limit", strings.Join(f.Limits, ", ")}, {"max_connections", nonzero(c.Connections)}, {"keepalive_requests", nonzero(c.Requests)}}
	head, headers, body := "", "", ""
	if f.Mode != TCP {
		head, headers = sizeText(int64(c.Head)), strconv.Itoa(c.Headers)
		if c.Body > 0 {
			body = sizeText(c.Body)
		}
	}
	return append(attrs, attribute{"max_head", head}, attribute{"max_headers", headers}, attribute{"max_body", body})
}

func describeLimit(l *Limit) object {
	key := l.Key.Source
	if l.Key.Name != "" {
		key += "[" + quote(l.Key.Name) + "]"
	}
	rate, burst := "", ""
	if l.Rate.Count > 0 {
		unit := map[time.Duration]string{time.Second: "s", time.Minute: "m", time.Hour: "h"}[l.Rate.Per]
		rate, burst = fmt.Sprintf("%d/%s", l.Rate.Count, unit), strconv.Itoa(l.Burst)
	}
	what := rate
	if l.Connections > 0 {
		what = strings.TrimPrefix(what+", "+strconv.Itoa(l.Connections)+" connections", ", ")
	}
	return object{"limit " + quote(l.Name), what + " for each " + key, []attribute{
		{"key", key}, {"connections", nonzero(l.Connections)}, {"rate", rate}, {"burst", burst}, {"status", strconv.Itoa(l.Status)},
		{"ipv6_prefix", strconv.Itoa(l.IPv6Prefix)}, {"size", strconv.Itoa(l.Size)},
	}}
}
