package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/skeinlb/skein/internal/node"
)

// What this host forbids is said with what to do about it; other failures have no such hint.
func TestWhatIsForbiddenHasAHint(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{&fs.PathError{Op: "open", Path: "/var/lib/skein", Err: fs.ErrPermission}, "error: join: open /var/lib/skein: permission denied\n hint: run it as root: sudo skein ...\n"},
		{&fs.PathError{Op: "open", Path: "/var/lib/skein", Err: fs.ErrExist}, "error: join: open /var/lib/skein: file already exists\n"},
	} {
		var said bytes.Buffer
		c := &cli{errOut: &said, env: func(string) string { return "" }}
		if code := c.finish(failed(fmt.Errorf("join: %w", tc.err))); code != exitFailed || said.String() != tc.want {
			t.Errorf("exit code %d, said %q, want %q", code, &said, tc.want)
		}
	}
}

// What keeps a host out of a cluster, be it this host, the way there or the cluster, comes with what to do.
func TestWhatKeepsAHostOutHasAHint(t *testing.T) {
	dir := t.TempDir()
	hcl := filepath.Join(dir, "node.hcl")
	if err := os.WriteFile(hcl, fmt.Appendf(nil, "name = \"lb1\"\ndata_dir = %q\nadvertise = \"127.0.0.1\"\n", dir), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		var said bytes.Buffer
		c := &cli{in: strings.NewReader(""), out: io.Discard, errOut: &said, env: func(string) string { return "" }}
		if code := c.run(context.Background(), append(args, "--config", hcl)); code != exitFailed && code != exitOK {
			t.Errorf("skein %v: exit code %d", args, code)
		}
		return said.String()
	}
	if said := run("cluster", "init"); said != "" {
		t.Fatalf("the first time: %s", said)
	}
	if said := run("cluster", "init"); !strings.Contains(said, "already a member") || !strings.Contains(said, " hint: start it: systemctl start skein") {
		t.Errorf("the second time: %s", said)
	}
	for _, tc := range []struct {
		err  error
		hint string
	}{
		{node.ErrMember, "start it: "},
		{node.ErrPin, "name a member of the cluster that the token is of"},
		{&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}, "does the agent of a member run there"},
		{&net.DNSError{Err: "no such host", Name: "lb9"}, "does the agent of a member run there"},
		{context.DeadlineExceeded, "does the agent of a member run there"},
		{fs.ErrPermission, "run it as root"},
	} {
		var said bytes.Buffer
		c := &cli{errOut: &said, env: func(string) string { return "" }}
		c.finish(notMember(fmt.Errorf("join at 198.51.100.1:7940: %w", tc.err)))
		if !strings.Contains(said.String(), "error: join at 198.51.100.1:7940: ") || !strings.Contains(said.String(), " hint: "+tc.hint) {
			t.Errorf("said %q, want the hint %q", &said, tc.hint)
		}
	}
}

// fullDisk takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// A backup by `skein show > edge.hcl` onto a full disk is no success, in whatever form the output is.
func TestOutputThatIsLostIsAFailure(t *testing.T) {
	for _, line := range []string{"version", "version -o json", "version -o yaml", "version -o name", "check --help", "fmt testdata/files/edge.hcl",
		"fmt --check testdata/files/ugly.hcl", "fmt --diff testdata/files/ugly.hcl", "completion bash"} {
		var said bytes.Buffer
		c := &cli{in: strings.NewReader(""), out: fullDisk{}, errOut: &said, env: func(string) string { return "" }, outWidth: func() int { return 0 }}
		if code := c.run(context.Background(), strings.Fields(line)); code != exitFailed || !strings.Contains(said.String(), "no space left on device") {
			t.Errorf("skein %s: exit code %d, said %q", line, code, &said)
		}
	}
	var said bytes.Buffer
	c := &cli{in: strings.NewReader(""), out: fullDisk{}, errOut: &said, env: func(string) string { return "" }}
	if code := c.run(context.Background(), []string{"check", "nowhere.hcl"}); code != exitFailed || strings.Contains(said.String(), "space") {
		t.Errorf("a command without output: exit code %d, said %q", code, &said)
	}
}

// A file that cannot be written back is not said to be written. Here it has no name any more, so that nothing can take its place.
func TestFmtSaysThatItIsWrittenWhenItIs(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("list  \"l\" {}\n"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	var out, said bytes.Buffer
	c := &cli{in: strings.NewReader(""), out: &out, errOut: &said, env: func(string) string { return "" }}
	code := c.run(context.Background(), []string{"fmt", "-w", fmt.Sprintf("/proc/self/fd/%d", f.Fd())})
	if code != exitFailed || out.Len() > 0 || !strings.HasPrefix(said.String(), "error: write /proc/self/fd/") {
		t.Errorf("exit code %d, output %q, said %q", code, &out, &said)
	}
}

// A process that is given standard output gets the file, not a pipe in front of it: a shell would have no terminal.
func TestStandardOutputIsHandedOnAsItIs(t *testing.T) {
	c := &cli{out: os.Stdout, errOut: new(bytes.Buffer), env: func(string) string { return "" }}
	for range 2 { // before and after a command
		if c.stdout() != os.Stdout {
			t.Fatalf("it is a %T", c.stdout())
		}
		c.run(context.Background(), []string{"check"})
	}
}
