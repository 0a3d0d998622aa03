package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/api/client"
)

// Exit codes, the same for every verb.
const (
	exitOK          = 0
	exitFailed      = 1
	exitDifference  = 2 // a difference was found, or something is degraded
	exitUsage       = 3
	exitUnreachable = 4 // no agent, or access denied
	exitNoQuorum    = 5 // no quorum, or somebody else was faster
)

// refusal is an error with the next command to type.
type refusal struct {
	code int
	what string
	hint string
}

func (r *refusal) Error() string { return r.what }

func usagef(hint, format string, args ...any) error {
	return &refusal{code: exitUsage, hint: hint, what: fmt.Sprintf(format, args...)}
}

func failf(hint, format string, args ...any) error {
	return &refusal{code: exitFailed, hint: hint, what: fmt.Sprintf(format, args...)}
}

// failed is what went wrong on this host, with a hint where it was forbidden.
func failed(err error) error {
	hint := ""
	if errors.Is(err, fs.ErrPermission) {
		hint = "run it as root: sudo skein ..."
	}
	return failf(hint, "%v", err)
}

// silent ends the command with a code when all has been said already.
type silent int

func (s silent) Error() string { return fmt.Sprintf("exit code %d", int(s)) }

// finish prints err, once, and returns the exit code that belongs to it. It is the only place where one is chosen from an error.
func (c *cli) finish(err error) int {
	var (
		said   silent
		ref    *refusal
		answer *api.Error
		gone   *client.Unreachable
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &said):
		return int(said)
	case errors.As(err, &ref):
		c.complain(err.Error(), ref.hint)
		return ref.code
	case errors.As(err, &answer):
		c.printDiagnostics(answer.Diagnostics)
		c.complain(err.Error(), answer.Hint)
		switch answer.Code {
		case api.CodeBadRequest:
			return exitUsage
		case api.CodeDenied:
			return exitUnreachable
		case api.CodeNoQuorum, api.CodeStaleRevision, api.CodeUnknownOutcome:
			return exitNoQuorum
		}
		return exitFailed
	case errors.Is(err, context.Canceled):
		c.complain("interrupted", "")
		return exitFailed
	case errors.As(err, &gone):
		c.complain(err.Error(), gone.Hint())
		return exitUnreachable
	}
	c.complain(err.Error(), "")
	return exitFailed
}

// complain prints one error and what to do about it.
func (c *cli) complain(what, hint string) {
	p := painter(c.color(c.errTTY))
	fmt.Fprintf(c.errOut, "%s %s\n", p.paint(bad, "error:"), what)
	if hint != "" {
		fmt.Fprintf(c.errOut, " %s %s\n", p.paint(dim, "hint:"), hint)
	}
}
