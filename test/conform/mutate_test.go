package conform

import (
	"flag"
	"math/rand/v2"
	"strings"
	"testing"
)

var (
	mutations = flag.Int("mutations", 1500, "how many mutated requests TestMutatedRequestsSmuggleNothing sends")
	seed      = flag.Uint64("seed", 1, "of the mutations")
)

// What nobody has thought of as a case: valid requests, torn in a few places.
func TestMutatedRequestsSmuggleNothing(t *testing.T) {
	r, err := Start(Skein(build(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	rng := rand.New(rand.NewPCG(*seed, 0))
	for n := range *mutations {
		bytes := Mutate(rng)
		if wrong := r.Survive(bytes); len(wrong) > 0 {
			t.Errorf("mutation %d of seed %d, %q:\n    %s", n, *seed, bytes, strings.Join(wrong, "\n    "))
		}
	}
}
