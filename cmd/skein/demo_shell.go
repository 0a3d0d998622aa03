package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/internal/lab"
)

// shell gives the person a shell on the client of the demo's world and ends with it. Nothing is killed but by that person.
func (d *demo) shell(ctx context.Context) error {
	if err := d.build(ctx); err != nil {
		return err
	}
	client, err := d.world.AddHost("client")
	if err != nil {
		return err
	}
	wctx, cancel := context.WithTimeoutCause(ctx, demoStep, fmt.Errorf("it took longer than %v", demoStep))
	defer cancel()
	runs := func(s *api.Status) bool {
		return s.Verdict == api.OK && len(s.VIPs) == 1 && s.VIPs[0].Holder != "" && len(s.VIPs[0].Draining) == 0
	}
	status, err := d.fleet.WaitStatus(wctx, "everything to run", runs)
	if err != nil {
		return err
	}
	// Whoever was ready first has the address. The story begins with the first node, every time.
	if first := d.fleet.Nodes()[0]; status.VIPs[0].Holder != first.Name {
		if _, err := first.Skein(wctx, "vip", "move", status.VIPs[0].Name, first.Name, "--drain", "1s"); err != nil {
			return err
		}
		status, err = d.fleet.WaitStatus(wctx, first.Name+" to hold the address", func(s *api.Status) bool {
			return runs(s) && s.VIPs[0].Holder == first.Name
		})
		if err != nil {
			return err
		}
	}
	// Ask a node that does not hold the address, so that the holder can be killed and the questions go on.
	asked := d.fleet.Nodes()[0]
	for _, n := range d.fleet.Nodes() {
		if n.Name != status.VIPs[0].Holder {
			asked = n
			break
		}
	}
	fmt.Fprintf(d.say, "\n%s holds %v. This shell is on the client; \"exit\" takes everything down.\n\n", status.VIPs[0].Holder, demoVIP)
	for _, line := range [][2]string{
		{fmt.Sprintf("curl http://%v/", demoVIP), "a page through the address"},
		{"skein status", fmt.Sprintf("what %s makes of the cluster (skein --help: what else there is)", asked.Name)},
		{"skein show > edge.hcl", "the configuration; change it, then: skein apply edge.hcl"},
		{"kill -9 $" + status.VIPs[0].Holder, "$lb1, $lb2 and $lb3 are the processes of the agents"},
	} {
		fmt.Fprintf(d.say, "  %-26s%s\n", line[0], line[1])
	}
	fmt.Fprintln(d.say)

	cmd := lab.Command(cmp.Or(d.c.env("SHELL"), "/bin/sh"))
	cmd.SysProcAttr.Setpgid = false // it has to stay in the terminal's foreground
	cmd.Stdin, cmd.Stdout, cmd.Stderr = d.c.in, d.c.stdout(), d.c.errOut
	cmd.Env = append(os.Environ(), "SKEIN_SOCKET="+asked.Socket())
	for _, n := range d.fleet.Nodes() {
		cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", n.Name, n.Agent().Pid))
	}
	if bin := filepath.Dir(d.fleet.Binary); bin != "" {
		cmd.Env = append(cmd.Env, "PATH="+strings.Join([]string{bin, d.c.env("PATH")}, string(os.PathListSeparator)))
	}
	p, err := client.Start(cmd)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-ctx.Done(): // the world's end is the shell's
		return nil
	}
	var exit *exec.ExitError
	if err := p.Err(); err != nil && !errors.As(err, &exit) { // the last command's status is the person's own
		return err
	}
	return nil
}
