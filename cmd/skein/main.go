// Command skein is the one binary: `skein agent` runs a node, every other verb operates one.
//
// A file per verb. It holds no knowledge of the cluster: verbs ask a node's API and draw the answer. The one rule: nothing is
// printed and no exit code is chosen but through the cli value, so that a test sees all that a terminal would.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends what does not end by the first
	code := newCLI().run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
