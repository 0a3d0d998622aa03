package main

import "slices"

// median of values, 0 of none.
func median(v []float64) float64 { return quantile(v, .5) }

// quantile between the two values that are nearest.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	at := q * float64(len(v)-1)
	i := int(at)
	if i+1 == len(v) {
		return v[i]
	}
	return v[i] + (at-float64(i))*(v[i+1]-v[i])
}

// spread is a median with the half of all values around it.
type spread struct {
	Median float64 `json:"median"`
	Q1     float64 `json:"q1"`
	Q3     float64 `json:"q3"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(v []float64) spread {
	return spread{median(v), quantile(v, .25), quantile(v, .75), quantile(v, 0), quantile(v, 1)}
}
