package config

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"testing"
)

var mutations = flag.Int("mutations", 300, "how many mutated files are tried")

// Files in which words were lost, doubled or exchanged: whatever they say, Parse explains it at a place in the file, and Format
// does not change what they mean. A fuzzer of bytes seldom gets past the syntax; this always starts from a file that is near to
// a right one.
func TestMutatedFiles(t *testing.T) {
	var files [][]string
	var all []string
	words := regexp.MustCompile(`"[^"\n]*"|[A-Za-z0-9_.-]+|[ \t]+|[\s\S]`)
	for _, pattern := range []string{"testdata/bad/*.txt", "testdata/good/*.hcl", "testdata/format/*.txt"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			src, _, _ := bytes.Cut([]byte(readCase(t, path)), []byte(divider))
			ws := words.FindAllString(string(src), -1)
			files, all = append(files, ws), append(all, ws...)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range *mutations {
		ws := append([]string(nil), files[i%len(files)]...)
		if len(ws) == 0 {
			continue
		}
		for range 1 + r.IntN(6) {
			at := r.IntN(len(ws))
			switch r.IntN(4) {
			case 0:
				ws[at] = ""
			case 1:
				ws[at] = all[r.IntN(len(all))]
			case 2:
				ws[at] += ws[r.IntN(len(ws))]
			case 3:
				other := r.IntN(len(ws))
				ws[at], ws[other] = ws[other], ws[at]
			}
		}
		var src []byte
		for _, w := range ws {
			src = append(src, w...)
		}
		for _, name := range []string{"edge.hcl", "node_"} {
			parseAny(t, name, src)
		}
		checkFormat(t, src)
		if t.Failed() {
			t.Fatalf("mutation %d:\n%s", i, src)
		}
	}
}
