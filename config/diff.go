package config

import (
	"fmt"
	"hash/crc32"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ChangeKind is what happens to an object.
type ChangeKind uint8

const (
	Added ChangeKind = iota + 1
	Removed
	Changed
)

func (k ChangeKind) String() string {
	switch k {
	case Added:
		return "add"
	case Removed:
		return "remove"
	case Changed:
		return "change"
	}
	return "unknown"
}

// MarshalText makes a kind a word in JSON.
func (k ChangeKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (k *ChangeKind) UnmarshalText(b []byte) error {
	for c := Added; c <= Changed; c++ {
		if c.String() == string(b) {
			*k = c
			return nil
		}
	}
	return fmt.Errorf("unknown kind of change %q", b)
}

// Change is one difference between two configurations.
type Change struct {
	Kind   ChangeKind `json:"kind"`
	Object string     `json:"object"` // backend "shop" server "s2"
	Detail string     `json:"detail"` // weight 1 -> 2
}

func (c Change) String() string { return c.Kind.String() + " " + c.Object + ": " + c.Detail }

// Diff lists what is different in new: what was added and changed in the order of new, then what was removed in the order of old.
// It compares meaning, not text: comments, layout and what only says a default differently are no difference. Either may be nil.
func Diff(old, new *Config) []Change {
	before, after := objects(old), objects(new)
	index := map[string]object{}
	for _, o := range before {
		index[o.name] = o
	}
	var changes []Change
	for _, n := range after {
		o, ok := index[n.name]
		if !ok {
			changes = append(changes, Change{Added, n.name, n.summary})
			continue
		}
		delete(index, n.name)
		for i, a := range n.attrs {
			if was := o.attrs[i].value; was != a.value {
				changes = append(changes, Change{Changed, n.name, a.name + " " + shown(was) + " -> " + shown(a.value)})
			}
		}
	}
	for _, o := range before {
		if _, gone := index[o.name]; gone {
			changes = append(changes, Change{Removed, o.name, o.summary})
		}
	}
	return changes
}

func shown(value string) string {
	if value == "" {
		return "none"
	}
	return value
}

// object is one object of a configuration as a person reads it. Objects of one kind have the same attributes in the same order.
type object struct {
	name    string
	summary string // the attributes that one would name on the phone
	attrs   []attribute
}

// attribute has the value "" when it is not set.
type attribute struct{ name, value string }

// objects flattens a configuration, in written order: the log, the cluster, VIPs, lists, limits, frontends each with its routes, backends each with
// its servers.
func objects(c *Config) []object {
	if c == nil {
		return nil
	}
	var all []object
	if l := c.Log; l != nil {
		all = append(all, object{"log", l.Format.String() + " to " + l.To, []attribute{
			{"format", l.Format.String()}, {"to", l.To}, {"headers", strings.Join(l.Headers, ", ")},
		}})
	}
	if p := c.Pair; p != nil {
		all = append(all, object{"cluster", "pair " + p.Mode.String(), []attribute{
			{"pair", p.Mode.String()}, {"tiebreak", join(p.Tiebreak)},
		}})
	}
	for _, v := range c.VIPs {
		all = append(all, object{"vip " + quote(v.Name), join(v.Addresses), []attribute{
			{"address", join(v.Addresses)}, {"interface", v.Interface}, {"virtual_mac", nonzero(v.RouterID)}, {"prefer", strings.Join(v.Prefer, ", ")},
			{"failback", after(v.Failback)}, {"group", v.Group}, {"minimum_servers", nonzero(v.MinimumServers)},
			{"vrrp", describeVRRP(v.VRRP)},
		}})
	}
	for _, l := range c.Lists {
		all = append(all, describeList(l))
	}
	for _, l := range c.Limits {
		all = append(all, describeLimit(l))
	}
	for _, f := range c.Frontends {
		all = append(all, describeFrontend(f))
		for _, r := range f.Routes {
			all = append(all, describeRoute(f, r))
		}
	}
	for _, b := range c.Backends {
		all = append(all, describeBackend(b))
		for _, s := range b.Servers {
			name := fmt.Sprintf("backend %s server %s", quote(b.Name), quote(s.Name))
			all = append(all, object{name, s.Address.String(), []attribute{
				{"address", s.Address.String()}, {"weight", strconv.Itoa(s.Weight)}, {"backup", yes(s.Backup)},
				{"max_connections", nonzero(s.MaxConnections)},
			}})
		}
	}
	return all
}

func describeFrontend(f *Frontend) object {
	var routes []string
	for _, r := range f.Routes {
		routes = append(routes, r.Name)
	}
	ports := describePorts(f)
	where := join(append(slices.Clone(f.VIPs), texts(f.Bind)...))
	o := object{"frontend " + quote(f.Name), ports + " on " + where, []attribute{
		{"vip", join(f.VIPs)}, {"bind", join(f.Bind)}, {"ports", ports}, {"backend", f.Backend},
		{"routes", strings.Join(routes, ", ")},
		{"timeouts headers", shortDuration(f.Timeouts.Headers)}, {"timeouts client", shortDuration(f.Timeouts.Client)},
		{"timeouts idle", shortDuration(f.Timeouts.Idle)}, {"min_rate", describeMinRate(f)},
		{"allow", strings.Join(f.Allow, ", ")}, {"deny", strings.Join(f.Deny, ", ")}, {"trusted", strings.Join(f.Trusted, ", ")},
		{"log", yes(!f.NoLog)},
	}}
	o.attrs = append(o.attrs, describeTLS(f)...)
	o.attrs = append(o.attrs, describeCaps(f)...)
	o.attrs = append(o.attrs, describeEdits(f.RequestHeaders, f.ResponseHeaders)...)
	return o
}

func describeRoute(f *Frontend, r *Route) object {
	action := ""
	switch {
	case r.Redirect != nil:
		action = fmt.Sprintf("redirect %d to %s", r.Redirect.Status, r.Redirect.Location)
	case r.Respond != nil:
		action = fmt.Sprintf("respond %d", r.Respond.Status)
		if r.Respond.Body != "" {
			action += fmt.Sprintf(" %s, %s", brief(r.Respond.Body), r.Respond.ContentType)
		}
	default:
		action = "backend " + quote(r.Backend)
	}
	when := ""
	if r.When != nil {
		when = r.When.String()
	}
	o := object{fmt.Sprintf("frontend %s route %s", quote(f.Name), quote(r.Name)), action, []attribute{
		{"host", join(r.Hosts)}, {"path", join(r.Paths)}, {"method", join(r.Methods)},
		{"header", describePairs(r.Headers)}, {"query", describePairs(r.Queries)}, {"cookie", describePairs(r.Cookies)},
		{"when", when}, {"limit", strings.Join(r.Limits, ", ")}, {"action", action},
	}}
	o.attrs = append(o.attrs, describeEdits(r.RequestHeaders, r.ResponseHeaders)...)
	return o
}

func describeBackend(b *Backend) object {
	servers := strconv.Itoa(len(b.Servers)) + " servers"
	if len(b.Servers) == 1 {
		servers = "1 server"
	}
	onDown := "keep"
	if b.CloseOnDown {
		onDown = "close"
	}
	return object{"backend " + quote(b.Name), servers + ", " + b.Balance.String(), []attribute{
		{"balance", describeBalance(b)}, {"sticky", describeSticky(b)}, {"check", describeCheck(b.Check)}, {"on_down", onDown},
		{"timeouts connect", shortDuration(b.Timeouts.Connect)}, {"timeouts response", shortDuration(b.Timeouts.Response)},
		{"timeouts server", shortDuration(b.Timeouts.Server)}, {"timeouts idle", shortDuration(b.Timeouts.Idle)},
		{"retries attempts", strconv.Itoa(b.Retries.Attempts)}, {"retries on", strings.Join(b.Retries.On, ", ")},
		{"retries budget", short(b.Retries.Budget)},
		{"queue length", strconv.Itoa(b.Queue.Length)}, {"queue timeout", shortDuration(b.Queue.Timeout)},
		{"max_requests", nonzero(b.MaxRequests)}, {"slow_start", nonzeroDuration(b.SlowStart)}, {"minimum_healthy", nonzeroShare(b.MinHealthy)},
		{"outlier", describeOutlier(b.Outlier)},
	}}
}

func describeBalance(b *Backend) string {
	if b.Balance != Hash {
		return b.Balance.String()
	}
	s := "hash of " + b.HashKey.String()
	if b.HashBound > 0 {
		s += " bound=" + short(b.HashBound)
	}
	return s
}

func describeOutlier(o *Outlier) string {
	if o == nil {
		return ""
	}
	return fmt.Sprintf("failures=%d window=%s eject=%s max_ejected=%s", o.Failures, shortDuration(o.Window), shortDuration(o.Eject), short(o.Share))
}

func nonzeroDuration(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return shortDuration(d)
}

func nonzeroShare(v float64) string {
	if v == 0 {
		return ""
	}
	return short(v)
}

func describeSticky(b *Backend) string {
	switch {
	case b.StickyCookie != nil:
		s := "cookie " + b.StickyCookie.Name
		if b.StickyCookie.Secure {
			s += " secure"
		}
		if b.StickyCookie.HTTPOnly {
			s += " http_only"
		}
		if b.StickyCookie.SameSite != "" {
			s += " same_site=" + b.StickyCookie.SameSite
		}
		return s
	case b.StickyTable != nil:
		key := b.StickyTable.Key.Source
		if key != "client" {
			key += "[" + quote(b.StickyTable.Key.Name) + "]"
		}
		return fmt.Sprintf("table %s ttl=%s size=%d", key, shortDuration(b.StickyTable.TTL), b.StickyTable.Size)
	}
	return ""
}

func describeCheck(k *Check) string {
	if k == nil {
		return ""
	}
	s := fmt.Sprintf("%s interval=%s timeout=%s rise=%d fall=%d", k.Kind, shortDuration(k.Interval), shortDuration(k.Timeout), k.Rise, k.Fall)
	if k.Port != 0 {
		s += fmt.Sprintf(" port=%d", k.Port)
	}
	if k.Kind == CheckHTTP {
		s += " path=" + k.Path
		if k.Host != "" {
			s += " host=" + k.Host
		}
		for i, r := range k.Expect.Status {
			s += []string{" status=", ","}[min(i, 1)]
			if s += strconv.Itoa(r.From); r.To != r.From {
				s += "-" + strconv.Itoa(r.To)
			}
		}
		if k.Expect.Body != "" {
			s += " body=" + brief(k.Expect.Body)
		}
	}
	return s
}

func describeEdits(request, response HeaderEdits) []attribute {
	var attrs []attribute
	for _, e := range []struct {
		name string
		HeaderEdits
	}{{"request_headers", request}, {"response_headers", response}} {
		list := func(hs []Header) string {
			var all []string
			for _, h := range hs {
				all = append(all, h.Name+"="+quote(h.Value))
			}
			return strings.Join(all, ", ")
		}
		attrs = append(attrs, attribute{e.name + " set", list(e.Set)}, attribute{e.name + " add", list(e.Add)},
			attribute{e.name + " remove", strings.Join(e.Remove, ", ")})
	}
	return attrs
}

func describePairs(ps []Pair) string {
	var all []string
	for _, p := range ps {
		all = append(all, p.Name+"="+quote(p.Value))
	}
	return strings.Join(all, ", ")
}

// brief shows the beginning of a long text, with its length and a checksum: two that differ anywhere are told apart.
func brief(s string) string {
	const most = 40
	if len(s) <= most {
		return quote(s)
	}
	return fmt.Sprintf("%s... (%d bytes, crc %08x)", quote(strings.ToValidUTF8(s[:most], "")), len(s), crc32.ChecksumIEEE([]byte(s)))
}

func texts[T any](list []T) []string {
	var all []string
	for _, v := range list {
		if p, ok := any(v).(netip.Prefix); ok {
			all = append(all, p.String())
			continue
		}
		all = append(all, fmt.Sprint(v))
	}
	return all
}

func join[T any](list []T) string { return strings.Join(texts(list), ", ") }

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func describeVRRP(r *VRRP) string {
	if r == nil {
		return ""
	}
	return fmt.Sprintf("router_id=%d version=%d priority=%d interval=%s preempt=%t", r.RouterID, r.Version, r.Priority, shortDuration(r.Interval), r.Preempt)
}

// after is a delay, "" for none.
func after(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return shortDuration(d)
}

func nonzero(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
