package engine

import (
	"os"
	"syscall"

	"github.com/skeinlb/skein/engine/proxy"
)

// descriptors returns how many the process may have. Go has raised the soft limit to the hard one already.
func descriptors() *proxy.Descriptors {
	d := &proxy.Descriptors{}
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err == nil && lim.Cur < 1<<30 {
		d.Limit = int(lim.Cur)
	}
	return d
}

// countDescriptors finds out how many descriptors are not connections: listeners, logs, the cluster's own. They change when a
// configuration does, if ever.
func (e *Engine) countDescriptors() {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return // without /proc the reserve has to do
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return
	}
	n := int64(len(names)) - 1 // the directory's own
	for _, w := range e.workers {
		n -= w.Connections() + w.ToServers() + 2*w.Pipes()
	}
	e.shared.Descriptors.SetOther(int(max(0, n)))
}
