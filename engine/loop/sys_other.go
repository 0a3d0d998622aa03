//go:build !amd64

package loop

import "syscall"

// The newer architectures have epoll_pwait alone; without a signal mask it is the same call.
const sysEpollWait = syscall.SYS_EPOLL_PWAIT
