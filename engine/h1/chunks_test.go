package h1

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// What Copy may append beyond the bytes it consumed.
const chunkSlack = maxChunkDigits + 2

// Section 7.1 of RFC 9112, sentence by sentence: what arrives, and the name of the error or what goes on.
var chunkCases = []struct{ sentence, in, want string }{
	{"a body is chunks and a last one", "5|hello|0||", "5|hello|0||"},
	{"sizes are hexadecimal, of either case", "A|0123456789|a|0123456789|0||", "a|0123456789|a|0123456789|0||"},
	{"leading zeros say nothing", "0005|hello|00||", "5|hello|0||"},
	{"but not any number of them", "0000000000000005|hello|0||", "bad_chunk_size"},
	{"a size is bounded", "fffffffffffffffff|", "bad_chunk_size"},
	{"a size is not empty", "|hello|0||", "bad_chunk_size"},
	{"nor signed", "+5|hello|0||", "bad_chunk_size"},
	{"nor prefixed", "0x5|hello|0||", "bad_chunk_size"},
	{"nor preceded by white space", " 5|hello|0||", "bad_chunk_size"},
	{"nor followed by it", "5 |hello|0||", "bad_chunk_extension"},
	{"a size ends with CR LF", "5\nhello|0||", "bare_lf"},
	{"and not with CR", "5\rhello|0||", "bare_cr"},
	{"data ends with CR LF", "5|hello\n0||", "bare_lf"},
	{"and not with CR", "5|hello\r0||", "bare_cr"},
	{"and where its size says", "5|helloo|0||", "bad_chunk_end"},
	{"not before", "5|hell|0||", "bare_lf"},
	{"the body ends with CR LF", "0|\n", "bare_lf"},
	{"and not with CR", "0|\rx", "bare_cr"},
	{"extensions are dropped", "5;a;b=c;d=\"e;\\\"|f\";g = h ;i|hello|0;z||", "bad_chunk_extension"},
	{"all forms of them", "5;a;b=c;d=\"e;\\\"f\t\";g = h ; i|hello|0;z||", "5|hello|0||"},
	{"an extension has a name", "5;|hello|0||", "bad_chunk_extension"},
	{"which is a token", "5;a@|hello|0||", "bad_chunk_extension"},
	{"its value is not empty", "5;a=|hello|0||", "bad_chunk_extension"},
	{"and a token or quoted", "5;a=b@|hello|0||", "bad_chunk_extension"},
	{"a quote has an end", "5;a=\"b|hello|0||", "bad_chunk_extension"},
	{"a LF ends no extension", "5;a\nhello|0||", "bare_lf"},
	{"nothing follows a quote", "5;a=\"b\"c|hello|0||", "bad_chunk_extension"},
	{"trailers are dropped", "5|hello|0|A: b|C:||", "5|hello|0||"},
	{"but must be fields", "0|A b||", "bad_trailer"},
	{"with a name", "0|: b||", "bad_trailer"},
	{"not folded", "0|A: b| c||", "bad_trailer"},
	{"without control characters", "0|A: \x00||", "bad_trailer"},
	{"and CR LF", "0|A: b\n|", "bare_lf"},
	{"everywhere", "0|A: b\rc||", "bare_cr"},
	{"what follows the body is not touched", "1|x|0||GET /", "1|x|0||"},
	{"extensions are bounded", "5;" + strings.Repeat("a", maxChunkOverhead) + "|hello|0||", "chunk_overhead"},
	{"over all chunks, if their data is less", strings.Repeat("1;"+strings.Repeat("a", 60)+"|x|", 300) + "0||", "chunk_overhead"},
	{"and saves nothing up", "400|" + strings.Repeat("x", 1024) + "|1;" + strings.Repeat("a", maxChunkOverhead) + "|x|0||", "chunk_overhead"},
	{"trailers are bounded", "0|A: " + strings.Repeat("a", maxChunkOverhead) + "||", "chunk_overhead"},
}

// copyChunks feeds in to c in pieces of at most step bytes and returns what came out, or the error's name.
func copyChunks(c *Chunks, in []byte, step int) (out string, used int) {
	var dst []byte
	for used < len(in) && !c.Done() {
		before := len(dst)
		piece := in[used:min(used+step, len(in))]
		var n int
		var err Error
		dst, n, err = c.Copy(dst, piece)
		if err != OK {
			return err.String(), used + n
		}
		if len(dst)-before > n+chunkSlack {
			return fmt.Sprintf("%d bytes became %d", n, len(dst)-before), used
		}
		used += n
		if n < len(piece) && !c.Done() {
			return "stopped early", used
		}
	}
	if !c.Done() {
		return "incomplete", used
	}
	return string(dst), used
}

func TestChunksAgainstRFC9112(t *testing.T) {
	for _, c := range chunkCases {
		in := lines(c.in)
		for _, step := range []int{1, 2, 3, 7, len(in)} {
			var k Chunks
			if got, _ := copyChunks(&k, []byte(in), step); got != lines(c.want) {
				t.Errorf("%s: in pieces of %d\n in   %.80q\n got  %.80q\n want %.80q", c.sentence, step, c.in, got, lines(c.want))
			}
		}
	}
}

func TestRawChunksAreTheirData(t *testing.T) {
	in := []byte(lines("5;x|hello|6| world|0|A: b||rest"))
	for step := 1; step <= len(in); step++ {
		k := Chunks{Raw: true}
		if got, n := copyChunks(&k, in, step); got != "hello world" || n != len(in)-len("rest") {
			t.Errorf("in pieces of %d: %q after %d bytes", step, got, n)
		}
	}
}

// A body that is long has many chunks, each of which may have an extension: a signature here. What the data does not make up for is
// bounded all the same.
func TestDataMakesUpForExtensions(t *testing.T) {
	signed := func(n, size int) []byte {
		chunk := fmt.Sprintf("%x;chunk-signature=%s|%s|", size, strings.Repeat("5", 64), strings.Repeat("x", size))
		return []byte(lines(strings.Repeat(chunk, n) + "0;chunk-signature=" + strings.Repeat("5", 64) + "||"))
	}
	for _, c := range []struct {
		n, size int
		refused bool
	}{
		{10_000, 1024, false},
		{10_000, 41, false}, // makes up for 82, and 81 are counted: the extension, its CR, and not its semicolon
		{10_000, 39, true},
		{10_000, 1, true},
		{200, 1, false},
	} {
		for _, step := range []int{1000, 1 << 30} {
			var k Chunks
			got, used := copyChunks(&k, signed(c.n, c.size), step)
			if refused := got == ChunkOverhead.String(); refused != c.refused || !refused && k.Data != int64(c.n*c.size) {
				t.Errorf("%d chunks of %d, in pieces of %d: refused %v after %d bytes, data %d; want refused %v",
					c.n, c.size, step, refused, used, k.Data, c.refused)
			}
		}
	}
}

// Any split of the input gives the same output, and the output is a fixed point.
func FuzzChunks(f *testing.F) {
	for i, c := range chunkCases {
		if len(c.in) < 200 {
			f.Add([]byte(lines(c.in)), uint8(i))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		var whole, parts, again Chunks
		want, n := copyChunks(&whole, in, len(in)+1)
		got, m := copyChunks(&parts, in, int(step)+1)
		if got != want || n != m {
			t.Fatalf("%q in pieces of %d: %q after %d, in one: %q after %d", in, int(step)+1, got, m, want, n)
		}
		if !whole.Done() {
			return
		}
		if second, _ := copyChunks(&again, []byte(want), len(want)); second != want {
			t.Fatalf("%q\nbecomes %q\nthen    %q", in, want, second)
		}
		if len(want) > n {
			t.Fatalf("%d bytes became %d", n, len(want))
		}
		raw := Chunks{Raw: true}
		data, _ := copyChunks(&raw, in, int(step)+1)
		if !bytes.Equal([]byte(data), dechunk(want)) {
			t.Fatalf("data of %q: %q, want %q", in, data, dechunk(want))
		}
	})
}

// dechunk takes a canonical body apart the simple way.
func dechunk(s string) (data []byte) {
	for {
		var n int
		fmt.Sscanf(s, "%x\r\n", &n)
		s = s[strings.Index(s, "\r\n")+2:]
		if n == 0 {
			return data
		}
		data = append(data, s[:n]...)
		s = s[n+2:]
	}
}

func TestChunksAreCopiedWithoutAllocation(t *testing.T) {
	in := []byte(lines("400|" + strings.Repeat("x", 1024) + "|0||"))
	dst := make([]byte, 0, len(in)+chunkSlack)
	if n := testing.AllocsPerRun(100, func() {
		var k Chunks
		k.Copy(dst, in[:100])
		k.Copy(dst, in[100:])
	}); n != 0 {
		t.Errorf("%v allocations per body, want none", n)
	}
}

func BenchmarkChunks(b *testing.B) {
	in := []byte(lines(strings.Repeat("400|"+strings.Repeat("x", 1024)+"|", 16) + "0||"))
	dst := make([]byte, 0, len(in)+chunkSlack)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		var k Chunks
		k.Copy(dst, in)
	}
}
