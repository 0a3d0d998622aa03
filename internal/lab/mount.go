package lab

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// MountMemory puts a disk of memory over a directory, of so many bytes, for what is started on the host from then on: a disk that can
// be filled up. Programs outside the host see the directory below. It is gone when the host is powered on again.
func (h *Host) MountMemory(dir string, bytes int) error {
	err := h.ns().do(func() error {
		inside, err := os.Readlink("/proc/thread-self/ns/mnt")
		if err != nil {
			return err
		}
		outside, err := os.Readlink("/proc/self/ns/mnt")
		if err != nil {
			return err
		}
		if inside == outside {
			return errors.New("the host has no mounts of its own: this machine forbids it")
		}
		return os.NewSyscallError("mount", unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d,mode=0700", bytes)))
	})
	if err != nil {
		return fmt.Errorf("mount memory over %s on %s: %w", dir, h.Name, err)
	}
	return nil
}
