package state

import (
	"errors"
	"testing"
)

// What a node has taken is placed as it is held, raises the generation, and is older than every placement after it.
func TestAdoptTakesOverWhatWasTaken(t *testing.T) {
	stands := Placement{VIP: "public", Node: "lb1", Epoch: Epoch{1, 20}}
	view := func() *View {
		return &View{
			Index: 30, Cluster: Cluster{ID: "c", Generation: 1}, Scope: Scope{VIPs: []string{"public"}},
			Nodes:      []Node{{Name: "lb1", Role: Balancer}, {Name: "lb2", Role: Balancer}},
			Placements: map[string]Placement{"public": stands},
		}
	}
	v := view()
	if r := v.adopt(Adopt{VIP: "public", Node: "lb2", Epoch: Epoch{4, 20}, Expect: stands.Epoch}); r.Code != OK {
		t.Fatal(r.Err())
	}
	if p := v.Placements["public"]; p.Node != "lb2" || p.Epoch != (Epoch{4, 20}) || p.First {
		t.Errorf("got %+v", p)
	}
	if v.Cluster.Generation != 4 {
		t.Errorf("generation %d, want 4", v.Cluster.Generation)
	}
	if r := v.place(Place{VIP: "public", Node: "lb1", Expect: Epoch{4, 20}}); r.Code != OK || r.Epoch.Compare(Epoch{4, 20}) <= 0 {
		t.Errorf("the next placement: %v, %v", r.Epoch, r.Err())
	}
	for _, c := range []struct {
		what string
		cmd  Adopt
		want error
	}{
		{"of another placement", Adopt{"public", "lb2", Epoch{4, 20}, Epoch{1, 19}}, ErrStaleEpoch},
		{"older than what stands", Adopt{"public", "lb2", Epoch{1, 19}, stands.Epoch}, ErrInvalid},
		{"too far ahead", Adopt{"public", "lb2", Epoch{1 << 40, 20}, stands.Epoch}, ErrInvalid},
		{"by a stranger", Adopt{"public", "lb9", Epoch{2, 20}, stands.Epoch}, ErrUnknownNode},
	} {
		if err := view().adopt(c.cmd).Err(); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.what, err, c.want)
		}
	}
}
