package api

// Pace is what went through something in the last five to ten seconds.
type Pace struct {
	Requests float64 `json:"requests"`  // per second; sessions of TCP
	Failed   float64 `json:"failed"`    // of those that ended, per second, did not get what they came for
	BytesIn  float64 `json:"bytes_in"`  // per second
	BytesOut float64 `json:"bytes_out"` // per second
	P50Ms    float64 `json:"p50_ms"`    // of a frontend and a backend: to the end; of a server: to the response's head. 0: nothing ended
	P99Ms    float64 `json:"p99_ms"`
}

// With is the pace of two together, those of two nodes for example. Quantiles cannot be added: the slower one counts.
func (p Pace) With(o Pace) Pace {
	return Pace{
		Requests: p.Requests + o.Requests, Failed: p.Failed + o.Failed, BytesIn: p.BytesIn + o.BytesIn, BytesOut: p.BytesOut + o.BytesOut,
		P50Ms: max(p.P50Ms, o.P50Ms), P99Ms: max(p.P99Ms, o.P99Ms),
	}
}
