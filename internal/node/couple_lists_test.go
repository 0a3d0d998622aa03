package node

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/state"
)

// hearsLists is an engine that remembers what it was told of lists.
type hearsLists struct {
	Engine
	lists map[string][]config.ListEntry
}

func (e *hearsLists) SetList(name string, entries []config.ListEntry) { e.lists[name] = entries }

func TestTheEngineIsToldWhatWasSetOnLists(t *testing.T) {
	c, diags := config.Parse("t.hcl", []byte("list \"bad\" {}\nlist \"good\" {}\nfrontend \"f\" {\n  bind  = [\"127.0.0.1\"]\n  http  = 80\n"+
		"  deny  = \"bad\"\n  allow = \"good\"\n  route \"r\" {\n    respond { status = 204 }\n  }\n}\n"))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	e := &hearsLists{lists: map[string][]config.ListEntry{}}
	n := &Node{engine: e}
	entry := config.ListEntry{Prefix: netip.MustParsePrefix("198.18.0.0/24"), In: true}
	v := &state.View{Config: c, Lists: map[string][]state.ListEntry{"bad": {{ListEntry: entry}}, "gone": {{ListEntry: entry}}}}
	n.tellLists(v)
	if got := e.lists["bad"]; len(e.lists) != 2 || !slices.Equal(got, []config.ListEntry{entry}) || len(e.lists["good"]) != 0 {
		t.Errorf("told %v", e.lists)
	}
	v.Lists = nil // cleared: the engine has to hear of that, too
	n.tellLists(v)
	if got := e.lists["bad"]; len(got) != 0 {
		t.Errorf("after clearing, told %v", got)
	}
}
