package vip

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The page is memory that agent and guard share: the agent writes, the guard reads, so a stopped agent cannot block the guard
// and a heartbeat costs the agent no system call (unsafe: its words are atomics at fixed places of a mapping). Each word has a cache line of its own, because each has its own writer.
//
//	line 0   magic
//	line 1   fit: 0 or 1
//	line 2   the agent's own stamp
//	line 3   number of loops that are meant to stamp
//	line 8.. one per loop
const (
	pageLine  = 64
	pageSize  = 16384
	pageMagic = 0x736b65696e000001 // "skein", layout 1
	lineMagic = 0
	lineFit   = 1
	lineAgent = 2
	lineLoops = 3
	lineFirst = 8

	// MaxLoops is how many progress words the page has.
	MaxLoops = pageSize/pageLine - lineFirst
)

// Parked in a progress word says that its loop has ended on purpose; the guard stops watching the word.
const Parked = ^uint64(0)

// page is a mapping of the shared memory. This file is the only one of the package that uses unsafe for it.
type page struct {
	mem []byte
	fd  int
}

// newPage makes the memory, sealed against shrinking: whoever maps it can't be killed by a truncation.
func newPage() (*page, error) {
	fd, err := unix.MemfdCreate("skein-progress", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create shared memory: %w", err)
	}
	err = unix.Ftruncate(fd, pageSize)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("size shared memory: %w", err)
	}
	p, err := mapPage(fd, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	p.word(lineMagic).Store(pageMagic)
	return p, nil
}

// openPage maps memory received from an agent, after checking that it is what newPage makes. It takes over fd on success.
func openPage(fd int) (*page, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_SHRINK == 0 {
		return nil, errors.New("shared memory is not sealed against shrinking")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size != pageSize {
		return nil, fmt.Errorf("shared memory has %d bytes, want %d", st.Size, pageSize)
	}
	p, err := mapPage(fd, unix.PROT_READ)
	if err != nil {
		return nil, err
	}
	if p.word(lineMagic).Load() != pageMagic {
		unix.Munmap(p.mem)
		return nil, errors.New("shared memory has another layout")
	}
	return p, nil
}

func mapPage(fd, prot int) (*page, error) {
	mem, err := unix.Mmap(fd, 0, pageSize, prot, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map shared memory: %w", err)
	}
	return &page{mem: mem, fd: fd}, nil
}

// word is the first word of a line; aligned, since the mapping is aligned to a page and lines to 64 bytes.
func (p *page) word(line int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&p.mem[line*pageLine]))
}

func (p *page) close() {
	unix.Munmap(p.mem)
	unix.Close(p.fd)
	p.mem = nil
}
