package api

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinlb/skein/internal/watch"
	"github.com/skeinlb/skein/state"
)

// Who types `skein apply` in the second in which a cluster is founded shall wait for it; without a cluster, the wait ends.
func TestWriteWaitsForACluster(t *testing.T) {
	for _, founded := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var views watch.Value[*state.View]
			views.Set(&state.View{})
			s := &Server{opts: Options{Views: &views}}
			start := time.Now()
			want := startTimeout
			if founded {
				want = time.Second
				time.AfterFunc(want, func() { views.Set(&state.View{Cluster: state.Cluster{ID: "c1"}}) })
			}
			s.started(t.Context())
			if got := time.Since(start); got != want {
				t.Errorf("founded %v: waited %v, want %v", founded, got, want)
			}
		})
	}
}
