package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"time"

	"github.com/skeinlb/skein/api"
)

// lookEvery is between two looks at the file that an upgrade would start.
const lookEvery = time.Second

// coupleProgram: the binary on the disk -> this node's report.
func (n *Node) coupleProgram(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var seen os.FileInfo
	for {
		info, err := os.Stat(n.program)
		switch {
		case err != nil:
			seen = nil
			n.onDisk.Update(func(p api.Program) api.Program {
				p.Version, p.Level, p.Differs, p.Problem = "", 0, true, err.Error()
				return p
			})
		case seen == nil || !os.SameFile(seen, info) || !seen.ModTime().Equal(info.ModTime()) || seen.Size() != info.Size():
			seen = info
			version, level, err := n.version, n.level, error(nil)
			differs := !isOwnImage(info)
			if differs {
				version, level, err = versionOf(ctx, n.program)
			}
			n.onDisk.Update(func(p api.Program) api.Program {
				p.Version, p.Level, p.Differs, p.Problem = version, level, differs, ""
				if err != nil {
					p.Problem = err.Error()
				}
				return p
			})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// isOwnImage reports whether a file is the one that runs here.
func isOwnImage(info os.FileInfo) bool {
	own, err := os.Stat(ownImage)
	return err == nil && os.SameFile(own, info)
}

// versionOf asks a binary for its version, and for the newest level of commands that it applies.
func versionOf(ctx context.Context, binary string) (version string, level int, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "version", "-o", "json")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return "", 0, fmt.Errorf("ask %s for its version: %w", binary, err)
	}
	var v struct {
		Version string `json:"version"`
		Level   int    `json:"level"`
	}
	if err := json.Unmarshal(out, &v); err != nil || v.Version == "" {
		return "", 0, fmt.Errorf("ask %s for its version: it does not answer like skein", binary)
	}
	return v.Version, max(1, v.Level), nil
}

// failedUpgradeOf is the attempt before this process, as the report says it.
func failedUpgradeOf(i *Inheritance) *api.FailedUpgrade {
	if i == nil || i.take.Failed == nil {
		return nil
	}
	f := i.take.Failed
	return &api.FailedUpgrade{PID: f.PID, Version: f.Version, Why: f.Why, At: f.At}
}

// upgradeError says what to do about an upgrade that was refused.
func upgradeError(err error, node string) error {
	hint := ""
	switch {
	case errors.Is(err, errEnding):
		hint = "start its agent again when it has ended: it runs what lies on the disk then"
	case errors.Is(err, ErrMoving):
		hint = "try again when they have ended: `skein vip list` counts them"
	case errors.Is(err, errBehind):
		hint = "mend the cause, or `skein apply` a configuration that works here; `skein status` shows when it is in force"
	case errors.Is(err, errGuard):
		hint = fmt.Sprintf("`skein node drain %s`, then on that host `systemctl restart skein-guard skein`, then `skein node enable %s`", node, node)
	case errors.Is(err, errFar):
		hint = "put the version before back there and restart that guard: `skein node drain NODE`, `systemctl restart skein-guard skein`; then upgrade"
	case errors.Is(err, errOld):
		hint = "put the version that the cluster runs there, or a newer one"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, errSuccessor):
		hint = "put a working binary there, and try again; `skein node show " + node + "` shows what lies there"
	}
	return api.UpgradeRefused(hint, err)
}
