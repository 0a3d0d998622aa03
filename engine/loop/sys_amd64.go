package loop

import "syscall"

const sysEpollWait = syscall.SYS_EPOLL_WAIT
