package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
)

// FreePort returns a TCP port of the loopback on which nobody listens, and which the kernel gives to nobody by itself: what it gives to
// connections, and to listeners that name no port, begins above (net.ipv4.ip_local_port_range). A port of the kernel's choice that was closed again is the next
// one's; it happened once in some thousands.
func FreePort() (int, error) {
	const from = 10_000
	to := 32_768
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(text), &to)
	}
	if to <= from {
		return 0, fmt.Errorf("net.ipv4.ip_local_port_range begins at %d, which leaves none from %d on", to, from)
	}
	for range 1000 {
		port := from + rand.IntN(to-from)
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free port was found in a thousand attempts")
}
