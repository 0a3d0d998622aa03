package vip

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// fill gives everything in v a value of its own.
func fill(v reflect.Value, n *int) {
	*n++
	switch p := v.Addr().Interface().(type) {
	case *netip.Addr:
		*p = netip.AddrFrom4([4]byte{198, 18, byte(*n >> 8), byte(*n)})
		return
	case *time.Time:
		*p = time.Unix(int64(*n), int64(*n)).UTC()
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString(fmt.Sprintf("%d \"é\" <\\\x01\n>", *n))
	case reflect.Int, reflect.Int64:
		v.SetInt(-int64(*n))
	case reflect.Uint8, reflect.Uint64:
		v.SetUint(uint64(*n % 250))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key, n)
			fill(value, n)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	default:
		panic(v.Kind())
	}
}

// A report says what encoding/json would say of it, whatever fields it gets: full, empty, and with empty things in it.
func TestAReportIsEncodedAsJSON(t *testing.T) {
	full, n := wireStatus{}, 0
	fill(reflect.ValueOf(&full).Elem(), &n)
	hollow := wireStatus{State: State{
		Held: map[string]Holding{}, Peers: map[string]PeerState{"n2": {}}, Conflicts: []Conflict{{}}, Explain: map[string][]string{"v": {"", "\xff"}},
		Pair: &Standing{},
	}}
	var e encoder
	var b []byte
	for name, w := range map[string]*wireStatus{"full": &full, "zero": {}, "hollow": &hollow, "full again": &full} {
		want, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		b = e.append(b[:0], w)
		var got, same wireStatus
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, b)
		}
		if err := json.Unmarshal(want, &same); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(same, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s is encoded differently (-encoding/json +here):\n%s", name, diff)
		}
		if keys := func(b []byte) (keys map[string]any) { json.Unmarshal(b, &keys); return keys }; len(keys(want)) != len(keys(b)) {
			t.Errorf("%s: has %d fields, want %d\n%s\n%s", name, len(keys(b)), len(keys(want)), b, want)
		}
	}
}

func TestWhatCannotBeEncodedIsSeenAtOnce(t *testing.T) {
	for _, v := range []any{new(float64), new(chan int), new(struct{ F func() }), new(map[int]string), new([]json.RawMessage), new(netip.AddrPort)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%T is taken", v)
				}
			}()
			var e encoder
			e.append(nil, v)
		}()
	}
}

func TestTextIsWhatFmtWouldSay(t *testing.T) {
	for _, c := range []struct {
		format string
		args   []any
	}{
		{"", nil},
		{"no verb", nil},
		{"%s", []any{"alone"}},
		{"held at epoch %v for %v, by %s", []any{Epoch{1, 2}, 1500 * time.Millisecond, "n1"}},
		{"probe %d of %d", []any{1, -3}},
		{"generation %d", []any{uint64(1) << 63}},
		{"%v was claimed by %v.", []any{netip.MustParseAddr("198.18.0.1"), net.HardwareAddr{0, 1, 0xab, 0xcd, 0xef, 0xff}}},
		{"%v", []any{netip.MustParseAddr("fd00::1")}},
	} {
		if got, want := string(appendf(nil, c.format, c.args...)), fmt.Sprintf(c.format, c.args...); got != want {
			t.Errorf("%q: got %q, want %q", c.format, got, want)
		}
	}
}

// What is reported from memory used before is what a new report would say, through elections, moves and conflicts; and it costs nothing.
func TestReportsMakeNoGarbage(t *testing.T) {
	w := newWorld(t, 2, 3)
	for _, n := range w.nodes {
		n.tell()
		n.act()
	}
	reports, encoders, buf := make([]report, 3), make([]encoder, 3), make([][]byte, 3)
	compare := func(when string) {
		t.Helper()
		for i, n := range w.nodes {
			now := n.now()
			n.m.fillReport(now, &reports[i])
			buf[i] = encoders[i].append(buf[i][:0], &reports[i])
			var got wireStatus
			if err := json.Unmarshal(buf[i], &got); err != nil {
				t.Fatalf("%s: n%d: %v\n%s", when, i, err, buf[i])
			}
			if diff := cmp.Diff(*n.m.status(now), got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Fatalf("%s: n%d reports (-new +used):\n%s", when, i, diff)
			}
			if strings.Contains(string(buf[i]), "%!") {
				t.Errorf("%s: n%d: a line can't be said: %s", when, i, buf[i])
			}
		}
	}
	compare("at the start")
	w.run(1500 * ms)
	w.place(0, 0, 1)
	w.place(1, 1, 1)
	w.run(3 * ms)
	compare("in the middle of a claim")
	w.run(500 * ms)
	compare("at rest")
	for i, n := range w.nodes {
		now := n.now()
		allocs := testing.AllocsPerRun(100, func() {
			n.m.fillReport(now, &reports[i])
			buf[i] = encoders[i].append(buf[i][:0], &reports[i])
		})
		t.Logf("n%d: %.0f allocations for a report of %d bytes", i, allocs, len(buf[i]))
		if allocs > 8 { // where a VIP is placed on another node, that is said by fmt
			t.Errorf("n%d allocates %v times for a report", i, allocs)
		}
	}
	m := w.nodes[0].m
	for k := range byte(3 * macsMax % 251) {
		m.foreign(w.nodes[0].now(), 0, m.vips[0].prefixes[0].Addr(), [6]byte{2, 0, 0, 0, k, k})
	}
	compare("while strangers claim the address")
	w.place(0, 2, 2)
	w.run(500 * ms)
	compare("after a move")
}
