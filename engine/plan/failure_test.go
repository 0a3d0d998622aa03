package plan

import (
	"os"
	"strings"
	"testing"
)

func TestEveryFailureHasANameAndSomebodyToBlame(t *testing.T) {
	seen := map[string]Failure{}
	for f := range NumFailures {
		name, by := f.String(), failures[f].by
		if name == "" || strings.ToLower(name) != name || strings.ContainsAny(name, " -") {
			t.Errorf("failure %d is called %q", f, name)
		}
		if other, ok := seen[name]; ok {
			t.Errorf("failures %d and %d are both called %q", other, f, name)
		}
		seen[name] = f
		if !strings.ContainsRune("-CcSsPRDKI", rune(by)) || by == 0 {
			t.Errorf("%v is blamed on %q", f, by)
		}
	}
}

func TestTermination(t *testing.T) {
	for _, tc := range []struct {
		f     Failure
		p     Phase
		local bool
		want  string
	}{
		{None, PhaseData, false, "--"},
		{None, PhaseData, true, "LR"},
		{ClientClosed, PhaseData, false, "CD"},
		{ClientClosed, PhaseHeaders, false, "CH"},
		{ClientTimeout, PhaseData, false, "cD"},
		{HeadersTimeout, PhaseRequest, true, "cR"},
		{ClientMalformed, PhaseRequest, true, "PR"},
		{ConnectRefused, PhaseConnect, true, "SC"},
		{ConnectTimeout, PhaseConnect, true, "sC"},
		{NoServer, PhaseConnect, true, "SC"},
		{QueueTimeout, PhaseQueue, true, "sQ"},
		{ServerClosed, PhaseHeaders, true, "SH"},
		{ServerMalformed, PhaseHeaders, true, "PH"},
		{ResponseTimeout, PhaseHeaders, true, "sH"},
		{ServerClosed, PhaseData, false, "SD"},
		{ServerTimeout, PhaseData, false, "sD"},
		{MarkedDown, PhaseData, false, "DD"},
		{Stopped, PhaseData, false, "KD"},
	} {
		if got := Termination(tc.f, tc.p, tc.local); string(got[:]) != tc.want {
			t.Errorf("Termination(%v, %c, %v) = %s, want %s", tc.f, tc.p, tc.local, got, tc.want)
		}
	}
}

func TestEveryCauseIsExplained(t *testing.T) {
	page, err := os.ReadFile("../../docs/logging.md")
	if err != nil {
		t.Fatal(err)
	}
	for f := range NumFailures {
		if !strings.Contains(string(page), "`"+f.String()+"`") {
			t.Errorf("docs/logging.md does not explain %v", f)
		}
	}
}
