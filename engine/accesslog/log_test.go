package accesslog

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/config"
)

// run gives a log a goroutine for the time of a test.
func run(t *testing.T, loops int, c *config.Log) *Log {
	t.Helper()
	l := New(Options{Node: "lb1", Loops: loops})
	l.Configure(c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return l
}

// say appends lines for these targets, as a loop does.
func say(l *Log, loop int, targets ...string) {
	r := l.Ring(loop)
	for _, target := range targets {
		e := entry()
		e.Target = []byte(target)
		r.Append(r.Settings(), &e)
	}
	r.Flush()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func content(t *testing.T, path string) string {
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}

// targets are the targets of the lines in a text, in order.
func targets(text string) string {
	var all []string
	for _, m := range regexp.MustCompile(`"target":"([^"]*)"`).FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return strings.Join(all, " ")
}

func TestLinesOfALoopArriveInOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l := run(t, 1, &config.Log{Format: config.LogJSON, To: path})
	var want []string
	for batch := range 20 { // four rings, so that blocks are used again
		for i := range 500 {
			want = append(want, fmt.Sprintf("/%d/%d", batch, i))
		}
		say(l, 0, want[batch*500:]...)
		eventually(t, "the batch", func() bool { return l.Stats().Written == uint64(len(want)) })
	}
	if got := targets(content(t, path)); got != strings.Join(want, " ") {
		t.Errorf("the file has %d bytes, not those lines in that order", len(content(t, path)))
	}
	if st := l.Stats(); st.Dropped != 0 {
		t.Errorf("%d lines were dropped", st.Dropped)
	}
}

func TestAFileThatWasMovedIsOpenedAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l := run(t, 1, &config.Log{Format: config.LogJSON, To: path})
	say(l, 0, "/1")
	eventually(t, "the first line", func() bool { return targets(content(t, path)) == "/1" })
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	say(l, 0, "/2")
	eventually(t, "the second line", func() bool { return targets(content(t, path+".1")) == "/1 /2" })
	l.Reopen()
	say(l, 0, "/3")
	eventually(t, "the third line", func() bool { return targets(content(t, path)) == "/3" })
	if got := targets(content(t, path+".1")); got != "/1 /2" {
		t.Errorf("the old file has %s", got)
	}
}

func TestAFileThatCannotBeOpenedIsTriedAgainAndSaid(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	path := filepath.Join(dir, "access.log")
	l := run(t, 1, &config.Log{Format: config.LogJSON, To: path})
	say(l, 0, "/1")
	eventually(t, "the problem to be known", func() bool { return strings.Contains(l.Stats().Problem, "no such file") })
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the line", func() bool { return targets(content(t, path)) == "/1" })
	eventually(t, "the problem to be gone", func() bool { return l.Stats().Problem == "" })
}

// A pipe that nobody reads blocks its writer for ever. Whoever serves must not notice.
func TestAReaderThatReadsNothingCostsLinesAndNothingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := mkfifo(path); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDWR, 0) // both ends, so that nobody waits for the other
	if err != nil {
		t.Fatal(err)
	}
	l := run(t, 1, &config.Log{Format: config.LogJSON, To: path})
	const lines = 10_000 // 4 MB: several times what pipe and ring hold
	for i := range lines {
		say(l, 0, fmt.Sprintf("/%d", i))
	}
	st := l.Stats()
	if st.Dropped == 0 || st.Written+st.Dropped > lines {
		t.Errorf("of %d lines %d are written and %d dropped", lines, st.Written, st.Dropped)
	}
	// When somebody reads again, lines arrive again, whole.
	text := make(chan string, 1)
	go func() {
		var all strings.Builder
		b := make([]byte, 64<<10)
		for !strings.Contains(all.String(), `"target":"/last"`) {
			n, err := reader.Read(b)
			if err != nil {
				break
			}
			all.Write(b[:n])
		}
		text <- all.String()
	}()
	eventually(t, "room", func() bool {
		r := l.Ring(0)
		return r.filled.Load() == r.read.Load()
	})
	say(l, 0, "/last")
	for _, line := range strings.Split(strings.TrimSuffix(<-text, "\n"), "\n") {
		if !strings.HasPrefix(line, `{"time":`) || !strings.HasSuffix(line, "}") {
			t.Fatalf("half a line: %q", line)
		}
	}
	reader.Close()
}

func TestSyslogGetsAMessageForEachLine(t *testing.T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	udp.SetReadDeadline(time.Now().Add(10 * time.Second))
	l := run(t, 1, &config.Log{Format: config.LogHAProxy, To: "syslog://" + udp.LocalAddr().String()})
	say(l, 0, "/1", "/2")
	for _, target := range []string{"/1", "/2"} {
		b := make([]byte, 4096)
		n, _, err := udp.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		want := regexp.MustCompile(`^<134>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z lb1 skein \d+ - - 198\.51\.100\.7:33317 \[.*\] shop web/s1 .* "GET ` + target + ` HTTP/1\.1"$`)
		if !want.Match(b[:n]) {
			t.Errorf("a message is %q", b[:n])
		}
	}
}

func TestTheHostsSyslogGetsLinesAsFromTheCLibrary(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	daemon, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.Close()
	daemon.SetReadDeadline(time.Now().Add(10 * time.Second))
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	o := output{log: &Log{pid: 4711}, to: "syslog", conn: conn}
	if n, err := o.write([]byte("one\ntwo\n")); n != 2 || err != nil {
		t.Fatalf("write = %d, %v", n, err)
	}
	for _, text := range []string{"one", "two"} {
		b := make([]byte, 4096)
		n, _, err := daemon.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		if want := regexp.MustCompile(`^<134>[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d skein\[4711\]: ` + text + `$`); !want.Match(b[:n]) {
			t.Errorf("a message is %q", b[:n])
		}
	}
}

// A disk that fills up in the middle of a line leaves half a line behind. The next one begins on a line of its own.
func TestALineAfterATornOneIsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	o := output{log: &Log{}, to: path, file: f}
	if n, err := o.write([]byte("one\ntwo\nthr")); n != 2 || err != nil {
		t.Errorf("write = %d, %v", n, err)
	}
	if n, err := o.write([]byte("four\n")); n != 1 || err != nil {
		t.Errorf("write = %d, %v", n, err)
	}
	o.close()
	if got := content(t, path); got != "one\ntwo\nthr\nfour\n" {
		t.Errorf("the file is %q", got)
	}
}

func TestWhatIsLeftIsWrittenWhenTheNodeEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l := New(Options{Loops: 2})
	l.Configure(&config.Log{Format: config.LogJSON, To: path})
	say(l, 0, "/1")
	say(l, 1, "/2")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l.Run(ctx)
	if got := targets(content(t, path)); got != "/1 /2" {
		t.Errorf("the file has %q", got)
	}
}

func TestAppendingAllocatesNothing(t *testing.T) {
	l := New(Options{Loops: 1})
	l.Configure(&config.Log{Format: config.LogJSON, To: "/nowhere", Headers: []string{"user-agent"}})
	r, e := l.Ring(0), entry()
	s := r.Settings()
	if n := testing.AllocsPerRun(50, func() { r.Append(s, &e) }); n != 0 {
		t.Errorf("a line allocates %v times", n)
	}
}
