package healthcheck

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/skeinlb/skein/internal/golden"
)

// TestTranscripts replays testdata/*.txt: a block of commands, "----", and what the machine says to each. The commands:
//
//	start [up|down] rise=N fall=N   a new server, believed up or down
//	good, bad                       the result of a probe
//	failed                          a connection failure seen by traffic
func TestTranscripts(t *testing.T) {
	golden.Each(t, "testdata/*.txt", 1, func(t *testing.T, text string) string {
		got, err := replay(text)
		if err != nil {
			t.Fatal(err)
		}
		return got
	})
}

// replay returns the transcript with every answer computed anew.
func replay(text string) (string, error) {
	var (
		out     strings.Builder
		answers []string
		at      standing
		rise    int
		fall    int
	)
	inAnswer := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		fields := strings.Fields(line)
		switch {
		case line == "----":
			fmt.Fprintln(&out, line)
			for _, a := range answers {
				fmt.Fprintln(&out, a)
			}
			answers, inAnswer = nil, true
			continue
		case inAnswer && line != "":
			continue
		case line == "" || strings.HasPrefix(line, "#"):
			inAnswer = false
			fmt.Fprintln(&out, line)
			continue
		}
		fmt.Fprintln(&out, line)
		var before = at
		switch fields[0] {
		case "start":
			at, rise, fall = standing{}, 0, 0
			for _, f := range fields[1:] {
				name, value, _ := strings.Cut(f, "=")
				n, _ := strconv.Atoi(value)
				switch name {
				case "up":
					at.up = true
				case "rise":
					rise = n
				case "fall":
					fall = n
				}
			}
			before = at
		case "good", "bad":
			at = at.step(fields[0] == "good", false, rise, fall)
		case "failed":
			at = at.step(false, true, rise, fall)
		default:
			return "", fmt.Errorf("no such command: %q", line)
		}
		answers = append(answers, say(before, at, rise, fall))
	}
	return out.String(), nil
}

func say(before, at standing, rise, fall int) string {
	word, other, need := "down", "up", rise
	if at.up {
		word, other, need = "up", "down", fall
	}
	s := word
	if before.up != at.up {
		s = "-> " + word
	}
	if !at.decided {
		s += ", believed"
	}
	if at.streak > 0 {
		s += fmt.Sprintf(", %d of %d towards %s", at.streak, need, other)
	}
	return s
}

func TestStepKeepsItsInvariants(t *testing.T) {
	for _, rise := range []int{1, 2, 5} {
		for _, fall := range []int{1, 3} {
			for seq := range 1 << 12 {
				s := standing{up: true}
				for i := range 12 {
					s = s.step(seq>>i&1 == 1, i%4 == 3, rise, fall)
					limit := rise
					if s.up {
						limit = fall
					}
					if s.streak < 0 || s.decided && s.streak >= limit {
						t.Fatalf("rise=%d fall=%d sequence %012b: after %d results %+v", rise, fall, seq, i+1, s)
					}
				}
			}
		}
	}
}
