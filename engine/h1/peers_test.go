package h1

import (
	"os"
	"strings"
	"testing"

	"github.com/skeinlb/skein/internal/golden"
)

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
	golden.File(t, file, golden.Blocks(string(src), func(command, rest string) string {
		out := f(strings.ReplaceAll(command+"\n"+rest+"\n", "\n", "\r\n"))
		return strings.TrimRight(strings.ReplaceAll(out, "\r\n", "\n"), "\n") + "\n"
	}))
}
