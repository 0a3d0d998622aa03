// Package docs keeps the documentation true: it runs what the pages show. Blocks of the README and of docs/*.md are
//
//	```hcl        a cluster's configuration; written to NAME when it begins with "# NAME"; also "hcl node" and "hcl bad"
//	```console    commands after "$ ", each with the output below it; run in the order of the page, see world.go
//	```sh         commands for a real host: not run, but every verb, flag, script, target and unit in them must exist
//
// The one rule: what a page shows is real output; what differs from run to run (times, tokens) is masked on both sides, see mask.go.
package docs
