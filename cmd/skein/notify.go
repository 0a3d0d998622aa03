package main

import (
	"fmt"
	"net"
	"os"
)

// notifyReady tells a service manager of Type=notify that the agent is up (sd_notify(3)). Without one it does nothing.
func notifyReady() error { return notify("READY=1") }

// notifyFollows tells it that this process is the service from now on: it has followed the one that was started.
func notifyFollows() error { return notify(fmt.Sprintf("READY=1\nMAINPID=%d", os.Getpid())) }

func notify(words string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer conn.Close()
	_, err = conn.Write([]byte(words))
	return err
}
