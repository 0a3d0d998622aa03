package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/vip"
)

// A running agent and the process that is to follow it, which it has started, talk over a pair of seqpacket sockets: one JSON object
// per packet, one field set in each. Nobody else can have an end of it.
//
//	successor                               agent
//	Ready: node.hcl is good, who I am   ->
//	                                    <-  Sockets, as many packets as it takes; Take: the log is yours
//	(opens the log, the engine, the
//	configuration, then the guard)
//	Serving                             ->  stops accepting, serves what it has to its end
//	                                    <-  Learned: sticky entries that came too late for the log
//	                                    <-  Stop: give the addresses away and end
//
// One of the two is the newer. Each passes over fields and packets that it does not know, and closes the descriptors that come with such
// a packet; what the other has to understand is refused with a Problem, or by the want of an answer, while nothing has changed yet.

// successionEnv tells a process that it is to follow another, and which descriptor its end of the pair is.
const successionEnv = "SKEIN_SUCCESSION"

// Bounds of a succession.
const (
	readyWithin   = 10 * time.Second // from exec to Ready
	servingWithin = 20 * time.Second // from Take to Serving
	yieldGrace    = 10 * time.Second // for the successor to tell the guard how it is, from its greeting on
	socketsMax    = 128              // descriptors in a packet; the kernel takes 253
	stopWithin    = 10 * time.Second // for a successor that stops, beyond its time to drain
	packetMax     = 128 << 10
	downMax       = 96 << 10 // bytes of names in a Take; the rest of a packet is enough for a whyMax of which each byte takes six
	whyMax        = 4096     // bytes
)

// toHeir is what an agent says.
type toHeir struct {
	Sockets []wireSockets `json:"sockets,omitempty"`
	Take    *take         `json:"take,omitempty"`
	Learned []byte        `json:"learned,omitempty"` // a batch for state.StickyLearn
	Stop    bool          `json:"stop,omitempty"`    // the node shall stop, as this agent was told while the successor took over
}

// wireSockets says what the descriptors of a packet are, in their order.
type wireSockets struct {
	Addr netip.AddrPort `json:"addr"`
	N    int            `json:"n"`
}

// take hands over everything but the established connections.
type take struct {
	Loops   int            `json:"loops"`
	Applied uint64         `json:"applied"`          // how far the log was applied: the successor serves nothing older
	Down    []string       `json:"down,omitempty"`   // "backend/server", the first of those that the checks find down, see downMax
	Failed  *failedUpgrade `json:"failed,omitempty"` // of another successor, before this one
}

// failedUpgrade is an attempt to follow the agent that came to nothing.
type failedUpgrade struct {
	PID     int       `json:"pid"`
	Version string    `json:"version"`
	Why     string    `json:"why"`
	At      time.Time `json:"at"`
}

// toAgent is what a successor says.
type toAgent struct {
	Ready   *heirReady `json:"ready,omitempty"`
	Problem string     `json:"problem,omitempty"` // why it will not follow
	Serving bool       `json:"serving,omitempty"`
}

type heirReady struct {
	Version string `json:"version"`
	PID     int    `json:"pid"`
	Guard   int    `json:"guard"` // the protocol that it speaks with a guard
	Level   int    `json:"level"` // the newest level of commands that it applies

	Heartbeats vip.Formats `json:"heartbeats,omitzero"` // that a guard of its version reads
}

// pair makes the two ends. The second is for the successor.
func pair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a pair of sockets: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "succession")
	ours, err := connOf(os.NewFile(uintptr(fds[0]), "succession"))
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// connOf takes over f.
func connOf(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("open the way between two agents: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("open the way between two agents: not a unix socket")
	}
	return u, nil
}

// say sends one packet.
func say(c *net.UnixConn, m any, fds ...int) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(b, rights, nil)
	return err
}

// hear reads one packet into m and returns the descriptors that came with it.
func hear(c *net.UnixConn, m any) ([]int, error) {
	buf, oob := make([]byte, packetMax), make([]byte, unix.CmsgSpace(4*(socketsMax+1)))
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errors.New("the other process has ended")
	}
	var fds []int
	if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
		for _, c := range msgs {
			if got, err := unix.ParseUnixRights(&c); err == nil {
				fds = append(fds, got...)
			}
		}
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		engine.Sockets{FDs: fds}.Close()
		return nil, errors.New("a packet between two agents was cut short")
	}
	if err := json.Unmarshal(buf[:n], m); err != nil {
		engine.Sockets{FDs: fds}.Close()
		return nil, fmt.Errorf("read what the other agent says: %w", err)
	}
	return fds, nil
}

// packets arranges sockets so that no packet has more than socketsMax descriptors.
func packets(all []engine.Sockets) (ps [][]engine.Sockets) {
	room := 0
	for _, s := range all {
		if len(s.FDs) > room {
			ps, room = append(ps, nil), socketsMax
		}
		room -= len(s.FDs)
		ps[len(ps)-1] = append(ps[len(ps)-1], s)
	}
	return ps
}
