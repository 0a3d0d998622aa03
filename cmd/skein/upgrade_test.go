package main

import (
	"testing"

	"github.com/skeinlb/skein/api"
)

// Only the failure of the process that was started for this upgrade ends the wait for it: the node reports the last one's until then.
func TestFollowed(t *testing.T) {
	failed := func(pid int) *api.FailedUpgrade {
		return &api.FailedUpgrade{PID: pid, Version: "v2", Why: "too many open files"}
	}
	for _, c := range []struct {
		name    string
		runs    int
		failed  *api.FailedUpgrade
		want    bool
		refused bool
	}{
		{name: "the former process still serves", runs: 10},
		{name: "it serves, after a former attempt that failed", runs: 10, failed: failed(9)},
		{name: "the new process serves", runs: 20, want: true},
		{name: "the new process failed, and the former binary goes on", runs: 21, failed: failed(20), refused: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &api.NodeStatus{Name: "lb1", Report: &api.NodeReport{PID: c.runs, Program: api.Program{Failed: c.failed}}}
			if ok, err := followed(n, 20); ok != c.want || (err != nil) != c.refused {
				t.Errorf("followed: %v, %v, want %v, an error: %v", ok, err, c.want, c.refused)
			}
		})
	}
	if ok, err := followed(&api.NodeStatus{Name: "lb1"}, 20); ok || err != nil {
		t.Errorf("a node that says nothing: %v, %v", ok, err)
	}
}
