package h1

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the transcripts' output instead of comparing it")

// What real clients and servers send was recorded once; the transcripts show what skein makes of it.
func TestHeadsOfRealPeers(t *testing.T) {
	t.Run("requests", func(t *testing.T) {
		transcript(t, "testdata/peers/requests.txt", func(in string) string {
			var r Request
			return forward(&r, in, &ToServer{For: []byte("198.18.0.1"), Proto: "http", Host: []byte("198.18.0.9")})
		})
	})
	t.Run("responses", func(t *testing.T) {
		transcript(t, "testdata/peers/responses.txt", func(in string) string {
			var r Response
			rest, head := strings.CutPrefix(in, "HEAD\r\n")
			if e := r.Parse([]byte(rest), head, Limits{}); e != OK || r.N != len(rest) {
				return e.String()
			}
			return string(r.AppendHead(nil, &ToClient{Minor: 1}))
		})
	})
}

// transcript reads blocks "input, ----, output" that are separated by empty lines; lines with # are prose.
func transcript(t *testing.T, file string, f func(string) string) {
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, block := range strings.Split(strings.TrimSpace(string(src)), "\n\n") {
		ask, _, asked := strings.Cut(block, "----")
		if !asked {
			blocks = append(blocks, block)
			continue
		}
		in := ""
		for _, l := range strings.SplitAfter(ask, "\n") {
			if !strings.HasPrefix(l, "#") {
				in += l
			}
		}
		out := strings.TrimRight(f(strings.ReplaceAll(in+"\n", "\n", "\r\n")), "\r\n")
		got := ask + "----\n" + strings.ReplaceAll(out, "\r\n", "\n")
		if blocks = append(blocks, got); got != block && !*rewrite {
			t.Errorf("got\n%s\n\nwant\n%s", got, block)
		}
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(strings.Join(blocks, "\n\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
