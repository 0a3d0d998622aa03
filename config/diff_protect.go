package config

import "fmt"

func describeMinRate(f *Frontend) string {
	if f.Mode == TCP {
		return ""
	}
	r := f.MinRate
	return fmt.Sprintf("request=%d response=%d grace=%s", r.Request, r.Response, shortDuration(r.Grace))
}
