package main

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// scenario is one thing that happens to the holder, seen from the client.
type scenario struct {
	name, what   string
	where        *segment                            // of the address; nil: labNet
	before       func(l *world, holder string) error // while nobody looks
	act          func(l *world, holder string) error
	pause        time.Duration // between act and undo, or the end
	undo         func(l *world, holder string) error
	stays        bool    // the address must not move
	keeps        bool    // every request is answered, and every long connection goes on
	long         bool    // the service may be away when the probe ends: all machines start anew
	twoHoldersMs float64 // two holders for less than this are within the bound that vip/DESIGN.md states; 0: none are
}

// on runs a command as root on the holder.
func on(command string) func(*world, string) error {
	return func(l *world, holder string) error {
		_, err := l.ssh(holder, "sudo sh -c '"+command+"'")
		return err
	}
}

const (
	agentPID = "$(systemctl show -p MainPID --value skein)"
	guardPID = "$(systemctl show -p MainPID --value skein-guard)"
)

var scenarios = []scenario{
	{name: "nothing", what: "nothing happens", act: func(*world, string) error { return nil }, pause: 5 * time.Second, stays: true, keeps: true},
	{name: "agent killed", what: "SIGKILL for the holder's agent", act: on("kill -9 " + agentPID), pause: 2 * time.Second},
	{name: "guard killed", what: "SIGKILL for the holder's guard", act: on("kill -9 " + guardPID), pause: 2 * time.Second},
	{
		name: "agent hung", what: "SIGSTOP for the holder's agent, resumed later",
		act: on("kill -STOP " + agentPID), pause: 6 * time.Second, undo: on("kill -CONT " + agentPID),
	},
	{
		name: "both hung", what: "SIGSTOP for guard and agent, resumed later",
		act: on("kill -STOP " + guardPID + " " + agentPID), pause: 6 * time.Second, undo: on("kill -CONT " + guardPID + " " + agentPID), twoHoldersMs: 100,
	},
	{
		name: "power off", what: "the holder's machine loses its power",
		act: virsh("destroy"), pause: 10 * time.Second, undo: virsh("start"),
	},
	{
		name: "cable cut", what: "the holder's cable is cut, later mended",
		act: cable("down"), pause: 10 * time.Second, undo: cable("up"),
	},
	{
		name: "partition", what: "the holder and the other nodes do not hear one another; the client reaches all",
		act: partition, pause: 10 * time.Second, undo: on("nft delete table inet lab_partition"),
	},
	{name: "address taken", what: "ip addr del of the VIP on the holder", act: taken, pause: 3 * time.Second, stays: true},
	{name: "ruleset flushed", what: "nft flush ruleset on the holder", act: on("nft flush ruleset"), pause: 3 * time.Second, stays: true},
	{
		name: "clock stepped", what: "the holder's clock goes an hour ahead, and back",
		act: on(`date -s "+1 hour" >/dev/null`), pause: 5 * time.Second, undo: on(`date -s "-1 hour" >/dev/null`), stays: true,
	},
	{name: "vip moved", what: "skein vip move", act: on("skein vip move public --drain 30s --no-wait"), pause: 5 * time.Second, keeps: true},
	{
		name: "node drained", what: "skein node drain, then enable",
		act: onNode("skein node drain %s --drain 30s --no-wait"), pause: 5 * time.Second, undo: onNode("skein node enable %s"), keeps: true,
	},
	{
		name: "node upgraded", what: "skein node upgrade: another process follows the holder's agent", act: onNode("skein node upgrade %s --drain 30s"),
		pause: 10 * time.Second, stays: true, keeps: true,
	},
	{
		name: "unit restarted", what: "systemctl restart skein on the holder", act: on("systemctl restart --no-block skein"),
		pause: 20 * time.Second, keeps: true,
	},
	{
		name: "heir restarted", what: "the same, where another process has followed the one that systemd had started", before: followed,
		act: on("systemctl restart --no-block skein"), pause: 20 * time.Second, keeps: true,
	},
	{
		name: "vlan: cable", where: vlan, what: "the address is on a VLAN; the holder's cable is cut, later mended",
		act: cable("down"), pause: 10 * time.Second, undo: cable("up"),
	},
	{name: "vlan: moved", where: vlan, what: "the address is on a VLAN; skein vip move", act: on("skein vip move vlan --drain 30s --no-wait"), pause: 5 * time.Second, keeps: true},
	{name: "vlan: gone", where: vlan, what: "the address is on a VLAN; its interface is deleted on the holder, later made anew", act: on("ip link del eth1.7"),
		pause: 10 * time.Second, undo: remakeVLAN},
	{
		name: "bond: one cable", where: bond, what: "the address is on a bond of two; the cable of the one that carries it is cut",
		act: bondCables("down", false), pause: 10 * time.Second, undo: bondCables("up", false), stays: true, keeps: true,
	},
	{
		name: "bond: both", where: bond, what: "the address is on a bond of two; both cables are cut",
		act: bondCables("down", true), pause: 10 * time.Second, undo: bondCables("up", true),
	},
	{name: "bond: moved", where: bond, what: "the address is on a bond of two; skein vip move", act: on("skein vip move bond --drain 30s --no-wait"), pause: 5 * time.Second, keeps: true},
	{name: "all rebooted", what: "every balancer loses its power and starts again", act: rebootAll, pause: 60 * time.Second, long: true},
}

// followed upgrades the holder in place, and waits until the process that was the unit has ended.
func followed(l *world, holder string) error {
	return on(fmt.Sprintf("was=%s; skein node upgrade %s --drain 30s && timeout 60 tail --pid=$was -f /dev/null", agentPID, holder))(l, holder)
}

// onNode runs a command that names the holder on it.
func onNode(format string) func(*world, string) error {
	return func(l *world, holder string) error { return on(fmt.Sprintf(format, holder))(l, holder) }
}

// domain is the name of a machine for libvirt: vagrant puts the folder's name before it.
func domain(machine string) string { return "vagrant_" + machine }

func virsh(verb string) func(*world, string) error {
	return func(_ *world, holder string) error { return command("virsh", verb, domain(holder)) }
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// cable pulls or plugs the cable of the holder's second interface, the one on the lab's network.
func cable(state string) func(*world, string) error {
	return func(_ *world, holder string) error {
		macs, err := cards(holder)
		if err != nil {
			return err
		}
		return command("virsh", "domif-setlink", domain(holder), macs[1], state)
	}
}

// partition cuts the holder off from the other nodes, both ways, for everything but ARP: their clients see all of them.
func partition(l *world, holder string) error {
	var others []string
	for i, n := range nodes {
		if n != holder {
			others = append(others, fmt.Sprintf("%s.%d", l.net, 11+i))
		}
	}
	set := "{ " + strings.Join(others, ", ") + " }"
	return on("nft add table inet lab_partition; "+
		"nft add chain inet lab_partition in \"{ type filter hook input priority -300; }\"; "+
		"nft add chain inet lab_partition out \"{ type filter hook output priority -300; }\"; "+
		"nft add rule inet lab_partition in ip saddr \""+set+"\" drop; "+
		"nft add rule inet lab_partition out ip daddr \""+set+"\" drop")(l, holder)
}

func taken(l *world, holder string) error {
	return on("ip addr del "+labNet.addr(l)+"/32 dev eth1")(l, holder)
}

func rebootAll(*world, string) error {
	var errs []error
	for _, n := range nodes {
		errs = append(errs, command("virsh", "destroy", domain(n)))
	}
	for _, n := range nodes {
		errs = append(errs, command("virsh", "start", domain(n)))
	}
	return errors.Join(errs...)
}
