package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"testing"
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
