package balance

import (
	"math"
	"testing"
)

func TestTwoAreDrawnByShareAndDiffer(t *testing.T) {
	upto := []int64{1, 2, 6, 10} // shares 1, 1, 4, 4
	var r Random
	r.Seed(1)
	var first, second [4]int
	const draws = 100_000
	for range draws {
		i, j := r.Two(upto)
		if i == j {
			t.Fatalf("drew %d twice", i)
		}
		first[i]++
		second[j]++
	}
	for i, want := range []float64{0.1, 0.1, 0.4, 0.4} {
		if got := float64(first[i]) / draws; math.Abs(got-want) > 0.01 {
			t.Errorf("place %d is drawn first in %.3f of the draws, its share is %v", i, got, want)
		}
	}
	// Once 2 or 3 is gone, the other has 4 of 6; P(second = 0) = .1*1/9 + 2*.4*1/6.
	if got := float64(second[0]) / draws; math.Abs(got-(0.1/9+0.8/6)) > 0.01 {
		t.Errorf("place 0 is drawn second in %.3f of the draws", got)
	}
	if i, j := r.Two([]int64{7}); i != 0 || j != 0 {
		t.Errorf("of one: %d, %d", i, j)
	}
}
