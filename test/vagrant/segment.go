package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// segment is where the address of a scenario lives: on the machines' second interface, on a VLAN there, or on a bond of two more
// interfaces. Its address ends in .100, the client's in .50, the nodes' in .11 to .13, as on the lab's own network.
type segment struct {
	vip    string
	byte3  string // of its network; "": the lab's own
	dev    string // where the nodes have the address
	client string // the client's interface
	raise  func(l *world, s *segment) error
	lower  func(l *world, s *segment) error
}

var (
	labNet = &segment{vip: "public", dev: "eth1", client: "eth1"}
	vlan   = &segment{vip: "vlan", byte3: "107", dev: "eth1.7", client: "eth1.7", raise: raiseVLAN, lower: lowerVLAN}
	bond   = &segment{vip: "bond", byte3: "108", dev: "bond0", client: "eth2", raise: raiseBond, lower: lowerBond}
)

// net is the first three bytes of the segment's network.
func (s *segment) net(l *world) string {
	if s.byte3 == "" {
		return l.net
	}
	return l.net[:strings.LastIndexByte(l.net, '.')+1] + s.byte3
}

func (s *segment) addr(l *world) string { return s.net(l) + ".100" }

// enter makes the interfaces, and puts the address and its frontends beside those that are configured.
func (s *segment) enter(l *world) error {
	if s.raise == nil {
		return nil
	}
	if err := s.raise(l, s); err != nil {
		return err
	}
	more := fmt.Sprintf(`
vip "%[1]s" {
  address   = "%[2]s/24"
  interface = "%[3]s"
}
frontend "web-%[1]s" {
  vip     = "%[1]s"
  http    = 80
  backend = "web"
}
frontend "echo-%[1]s" {
  vip     = "%[1]s"
  tcp     = 7000
  backend = "echo"
}
`, s.vip, s.addr(l), s.dev)
	var err error
	if l.base, err = l.ssh(nodes[0], "sudo skein show"); err != nil {
		return err
	}
	return l.apply(l.base + more)
}

// leave puts everything back as it was.
func (s *segment) leave(l *world) error {
	if s.lower == nil {
		return nil
	}
	return errors.Join(l.apply(l.base), s.lower(l, s))
}

// apply makes a configuration the cluster's.
func (l *world) apply(config string) error {
	_, err := l.ssh(nodes[0], "sudo skein apply - <<'END'\n"+config+"\nEND")
	return err
}

// everywhere runs a command as root on the nodes and the client, with $IP as the machine's address in the segment.
func (s *segment) everywhere(l *world, command string) error {
	var errs []error
	for i, m := range machines {
		last := 50
		if i > 0 {
			last = 10 + i
		}
		_, err := l.ssh(m, fmt.Sprintf("sudo env IP=%s.%d sh -ec '%s'", s.net(l), last, command))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func raiseVLAN(l *world, s *segment) error {
	return s.everywhere(l, "modprobe 8021q; ip link add link eth1 name eth1.7 type vlan id 7; ip addr add $IP/24 dev eth1.7; ip link set eth1.7 up")
}

// remakeVLAN makes a node's interface on the VLAN anew.
func remakeVLAN(l *world, holder string) error {
	for i, n := range nodes {
		if n == holder {
			return on(fmt.Sprintf("ip link add link eth1 name eth1.7 type vlan id 7; ip addr add %s.%d/24 dev eth1.7; ip link set eth1.7 up", vlan.net(l), 11+i))(l, holder)
		}
	}
	return fmt.Errorf("%s is none of the nodes", holder)
}

func lowerVLAN(l *world, s *segment) error { return s.everywhere(l, "ip link del eth1.7") }

// bondNet is libvirt's name of the network between the bonds.
const bondNet = "skein-bond"

// raiseBond plugs two more interfaces into each node and one into the client, while they run: eth2 and eth3.
func raiseBond(l *world, s *segment) error {
	xml := filepath.Join(l.dir, "bond.xml")
	if err := os.WriteFile(xml, []byte("<network><name>"+bondNet+"</name><bridge name='skein-bond0'/></network>\n"), 0o600); err != nil {
		return err
	}
	if err := command("virsh", "net-create", xml); err != nil {
		return err
	}
	plug := func(machine string) error {
		return command("virsh", "attach-interface", domain(machine), "network", bondNet, "--model", "virtio", "--live")
	}
	errs := []error{plug("client")}
	for _, n := range nodes {
		errs = append(errs, plug(n), plug(n))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return s.everywhere(l, `wait() { for _ in $(seq 300); do [ -e /sys/class/net/$1 ] && return; sleep 0.1; done; echo "no $1" >&2; return 1; }
wait eth2
[ $(hostname) != client ] || { ip addr add $IP/24 dev eth2; ip link set eth2 up; exit; }
wait eth3
modprobe bonding max_bonds=0
ip link add bond0 address $(cat /sys/class/net/eth2/address) type bond mode active-backup miimon 50
for m in eth2 eth3; do ip link set $m down; ip link set $m master bond0; done
ip addr add $IP/24 dev bond0
ip link set bond0 up`)
}

func lowerBond(l *world, s *segment) error {
	var errs []error
	for _, n := range nodes {
		_, err := l.ssh(n, "sudo ip link del bond0")
		errs = append(errs, err)
	}
	for _, m := range machines {
		macs, err := cards(m)
		errs = append(errs, err)
		for _, mac := range macs[min(2, len(macs)):] {
			errs = append(errs, command("virsh", "detach-interface", domain(m), "network", "--mac", mac, "--live"))
		}
	}
	return errors.Join(append(errs, command("virsh", "net-destroy", bondNet))...)
}

// cards are the MACs of a machine's interfaces: management, the lab's network, then those of the bond.
func cards(machine string) ([]string, error) {
	out, err := exec.Command("virsh", "domiflist", domain(machine)).Output()
	if err != nil {
		return nil, fmt.Errorf("interfaces of %s: %w", machine, err)
	}
	var macs []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 5 && strings.Contains(f[4], ":") {
			macs = append(macs, f[4])
		}
	}
	if len(macs) < 2 {
		return nil, fmt.Errorf("%s has %d interfaces, want 2 or more", machine, len(macs))
	}
	return macs, nil
}

// bondCables pulls or plugs the cables of the holder's bond: that of the member which carries everything, or both.
func bondCables(state string, all bool) func(*world, string) error {
	return func(l *world, holder string) error {
		macs, err := cards(holder)
		if err != nil {
			return err
		}
		carries, err := l.ssh(holder, "cat /sys/class/net/$(cat /sys/class/net/bond0/bonding/active_slave)/bonding_slave/perm_hwaddr")
		if err != nil && !all && state == "down" {
			return err
		}
		var errs []error
		for _, mac := range macs[2:] {
			if all || state == "up" || mac == carries {
				errs = append(errs, command("virsh", "domif-setlink", domain(holder), mac, state))
			}
		}
		return errors.Join(errs...)
	}
}
