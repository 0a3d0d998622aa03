package node

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/skeinlb/skein/vip"
)

func someFlow(r *rand.Rand, n int) flow {
	f := vip.Flow{VIP: netip.MustParseAddrPort("198.18.0.100:80"), Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 1, byte(r.IntN(n))}), uint16(r.IntN(n)))}
	if r.IntN(2) == 0 {
		f = vip.Flow{VIP: netip.MustParseAddrPort("[fd00::100]:443"), Client: netip.AddrPortFrom(netip.AddrFrom16([16]byte{0xfd, 15: byte(r.IntN(n))}), uint16(r.IntN(n)))}
	}
	return flowOf(f)
}

func someFlows(r *rand.Rand, n int) []flow {
	var fs []flow
	for range r.IntN(n * 10) {
		fs = append(fs, someFlow(r, n))
	}
	slices.SortFunc(fs, compareFlows)
	return slices.Compact(fs)
}

// One node's connections change at random. Another that reads the stream knows them all after each change, and no others.
func TestANodeKnowsAnothersConnectionsFromWhatChanges(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	known := map[flow]struct{}{}
	var told []flow
	for range 200 {
		now := someFlows(r, 40)
		var wire bytes.Buffer
		if err := writeChanges(&wire, appendChanges(nil, told, now)); err != nil {
			t.Fatal(err)
		}
		for wire.Len() > 0 {
			frame, err := readFrame(&wire)
			if err != nil {
				t.Fatal(err)
			}
			if err := readChanges(frame, known); err != nil {
				t.Fatal(err)
			}
		}
		told = now
		if got := slices.SortedFunc(maps.Keys(known), compareFlows); !slices.Equal(got, now) {
			t.Fatalf("%d connections are known, want %d", len(got), len(now))
		}
	}
	want := 0
	for _, k := range told {
		if k.vip() == netip.MustParseAddr("fd00::100") {
			want++
		}
	}
	taken := takeFlows(known, []netip.Addr{netip.MustParseAddr("fd00::100")})
	if len(taken) != want || len(known) != len(told)-want {
		t.Errorf("took %d and left %d of %d connections, want to take %d", len(taken), len(known), len(told), want)
	}
	for _, f := range taken {
		if f.VIP != netip.MustParseAddrPort("[fd00::100]:443") {
			t.Fatalf("took a connection to %v", f.VIP)
		}
	}
}

// A node that ended forgets what it was told. The stream to it ends then, to begin anew, although no connection here has changed: those that
// never change are the ones whose clients have to be woken.
func TestAStreamOfConnectionsEndsWithItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{}
		n.own.Set(someFlows(rand.New(rand.NewPCG(1, 2)), 10))
		here, there := net.Pipe()
		told := make(chan struct{})
		go func() { n.tellFlowsOver(t.Context(), here); close(told) }()
		if _, err := readFrame(there); err != nil {
			t.Fatal(err)
		}
		there.Close()
		synctest.Wait()
		select {
		case <-told:
		default:
			t.Error("it goes on with a stream that nobody reads")
			n.own.Set(nil)
		}
	})
}

// A list that does not fit into one frame goes in several.
func TestALongListOfConnectionsGoesInFrames(t *testing.T) {
	var all []flow
	for i := range 20_000 {
		all = append(all, flowOf(vip.Flow{VIP: netip.MustParseAddrPort("[fd00::1]:80"), Client: netip.AddrPortFrom(netip.AddrFrom16([16]byte{0xfd, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}), 1)}))
	}
	var wire bytes.Buffer
	if err := writeChanges(&wire, appendChanges(nil, nil, all)); err != nil {
		t.Fatal(err)
	}
	known, frames := map[flow]struct{}{}, 0
	for wire.Len() > 0 {
		frame, err := readFrame(&wire)
		if err != nil {
			t.Fatal(err)
		}
		if err := readChanges(frame, known); err != nil {
			t.Fatal(err)
		}
		frames++
	}
	if len(known) != len(all) || frames < 2 {
		t.Errorf("%d of %d connections in %d frames", len(known), len(all), frames)
	}
}

// A newer node says something else about connections, too: what is known of it counts.
func TestConnectionsOfANewerVersion(t *testing.T) {
	var all []flow
	for port := range uint16(3) {
		all = append(all, flowOf(vip.Flow{VIP: netip.MustParseAddrPort("198.18.0.100:443"), Client: netip.AddrPortFrom(netip.MustParseAddr("198.18.0.7"), 1000+port)}))
	}
	known := map[flow]struct{}{}
	b := all[0].append(nil, '+')
	b = all[1].append(b, '~')
	b = all[2].append(b, '+')
	if err := readChanges(b, known); err != nil || len(known) != 2 {
		t.Errorf("%d known, %v; want 2", len(known), err)
	}
}

// Only what was there a step before is told: most connections end before anybody could miss them.
func TestOnlyLastingConnectionsAreTold(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		before, now := someFlows(r, 10), someFlows(r, 10)
		var want []flow
		for _, k := range now {
			if slices.Contains(before, k) {
				want = append(want, k)
			}
		}
		if got := lasting(before, now); !slices.Equal(got, want) {
			t.Fatalf("of %d and %d connections %d last, want %d", len(before), len(now), len(got), len(want))
		}
	}
}

// Whatever a node sends, another that reads it neither panics nor keeps more than the bound.
func FuzzConnections(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	var wire bytes.Buffer
	writeChanges(&wire, appendChanges(nil, someFlows(r, 5), someFlows(r, 5)))
	f.Add(wire.Bytes())
	f.Add([]byte{0, 0, 0, 3, '+', 4, 1})
	f.Add([]byte{0, 0, 0, 2, '-', 16})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		known := map[flow]struct{}{}
		in := bytes.NewReader(b)
		for {
			frame, err := readFrame(in)
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errFlows) {
					t.Fatalf("unexpected error: %v", err)
				}
				return
			}
			if readChanges(frame, known) != nil {
				return
			}
		}
	})
}
