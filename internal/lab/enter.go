package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// entered says that Enter has run: New refuses to start this program again as its helper where nobody would notice that it is one.
var entered bool

// Enter makes sure that this process may build a World. It comes first thing in main. Where the process may not make network
// namespaces, as an ordinary user, Enter starts the same program again with the same arguments inside a user namespace in
// which it is root, passes signals on, and ends with its exit status: it returns in the second process only. An error says
// why this machine has no labs for this user, and what to do about it.
func Enter() error {
	if os.Getenv(envSweep) != "" {
		if err := sweep(os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, "lab sweeper:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	again := os.Getenv(envEntered) != ""
	os.Unsetenv(envEntered)
	err := tryNamespace()
	switch {
	case err == nil:
		entered = true
		return nil
	case again:
		return fmt.Errorf("a user namespace was made, but no network namespace inside it: %w%s", err, hint("/"))
	case !errors.Is(err, unix.EPERM):
		return fmt.Errorf("make a network namespace: %w%s", err, hint("/"))
	}
	status, err := enterUserNamespace()
	if err != nil {
		return fmt.Errorf("make a user namespace: %w%s", err, hint("/"))
	}
	os.Exit(status)
	return nil
}

// tryNamespace makes a network namespace and drops it.
func tryNamespace() error {
	done := make(chan error, 1)
	onOwnThread(func() { done <- unix.Unshare(unix.CLONE_NEWNET) })
	return <-done
}

// enterUserNamespace runs this program once more in new namespaces and returns its exit status. Its uid 0 is the user outside.
// The network namespace matters too: setns back into one needs rights over it, which nobody has over the machine's.
func enterUserNamespace() (int, error) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), envEntered+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGTERM, // it cleans up after itself
	}
	// Both processes are in the terminal's foreground group: ^C reaches the second one without our help, and twice is once
	// too often. The other signals are sent to one process.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)

	// Pdeathsig watches the thread that forks; keep it for as long as the child lives.
	type end struct {
		status int
		err    error
	}
	ended := make(chan end, 1)
	started := make(chan struct{})
	onOwnThread(func() {
		err := cmd.Start()
		if err == nil {
			close(started)
			err = cmd.Wait()
		}
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit) && exit.Exited():
			ended <- end{status: exit.ExitCode()}
		case errors.As(err, &exit):
			ended <- end{status: 128 + int(exit.Sys().(syscall.WaitStatus).Signal())}
		default:
			ended <- end{err: err}
		}
	})
	for {
		select {
		case e := <-ended:
			return e.status, e.err
		case sig := <-signals:
			if sig == unix.SIGTERM || sig == unix.SIGHUP {
				select {
				case <-started:
					cmd.Process.Signal(sig)
				case e := <-ended:
					return e.status, e.err
				}
			}
		}
	}
}

// hint names the setting below root that keeps ordinary users from making namespaces, if one does.
func hint(root string) string {
	for _, s := range []struct{ path, bad, name, want string }{
		{"/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces", "15000"},
		{"/proc/sys/user/max_net_namespaces", "0", "user.max_net_namespaces", "15000"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone", "1"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns", "0"},
	} {
		if b, err := os.ReadFile(filepath.Join(root, s.path)); err == nil && strings.TrimSpace(string(b)) == s.bad {
			return fmt.Sprintf("; this machine forbids it: run as root, or allow it with `sysctl -w %s=%s`", s.name, s.want)
		}
	}
	return "; run as root (in a container: with CAP_SYS_ADMIN and CAP_NET_ADMIN, or without a seccomp filter on unshare)"
}
