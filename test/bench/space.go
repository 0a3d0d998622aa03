package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// The benchmark runs in a network namespace of its own: ports are free, nothing else is on its loopback, and its settings are its own.
const insideMark = "SKEIN_BENCH_INSIDE"

// congestion is the control that all sockets of a comparison have.
const congestion = "reno"

func inside() bool { return os.Getenv(insideMark) != "" }

// enter runs this program again in a new network namespace, and in a user namespace too where it is not root. It returns its status.
func enter() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideMark+"=1")
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	cmd.SysProcAttr = attr
	signal.Ignore(syscall.SIGINT) // the child is of the same group and cleans up
	runtime.LockOSThread()        // Pdeathsig is about this thread
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench: a network namespace:", err)
		return 1
	}
	return 0
}

// furnish makes the namespace usable: the loopback up, many ports, ports of ended connections usable again after a second, and congestion
// control by acknowledgements. A namespace inherits the machine's, and BBR paces by timers: on a loopback that more than doubled the cost of
// large bodies for every proxy and held one in a hundred for 30 ms. Reno is in every kernel and open to every namespace, as cubic is not.
func furnish() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		return fmt.Errorf("bring the loopback up: %w", err)
	}
	for name, value := range map[string]string{"ip_local_port_range": "10000 65000", "tcp_tw_reuse": "1", "tcp_max_syn_backlog": "16384", "tcp_congestion_control": congestion} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	// As many descriptors as may be, for every process that is started from here.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}
