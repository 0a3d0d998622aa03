package healthcheck

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// errNotPermitted is what an ICMP probe returns when the kernel lets it have no socket.
var errNotPermitted = errors.New(
	`not permitted to send ICMP: give skein CAP_NET_RAW, or its group ping sockets (sysctl net.ipv4.ping_group_range="0 2147483647")`)

// echo is one way of sending ICMP echoes for one IP version.
type echo struct {
	network, listen string
	raw             bool
	proto           int
	request, reply  icmp.Type
}

// Ping sockets first: they need no capability where a distribution allows them, and the kernel sorts out foreign replies.
var (
	echoes4 = []echo{
		{"udp4", "0.0.0.0", false, 1, ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply},
		{"ip4:icmp", "0.0.0.0", true, 1, ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply},
	}
	echoes6 = []echo{
		{"udp6", "::", false, 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply},
		{"ip6:ipv6-icmp", "::", true, 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply},
	}
)

// icmpProbe sends one echo request and waits for its reply.
func icmpProbe(addr netip.Addr) probe {
	return func(ctx context.Context) (string, error) {
		conn, e, err := listenEcho(addr)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
		defer stop()
		if err := e.ping(conn, addr); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return "", err
		}
		return "echo reply", nil
	}
}

func listenEcho(addr netip.Addr) (*icmp.PacketConn, echo, error) {
	ways := echoes4
	if addr.Is6() && !addr.Is4In6() {
		ways = echoes6
	}
	for _, e := range ways {
		conn, err := icmp.ListenPacket(e.network, e.listen)
		if err == nil {
			return conn, e, nil
		}
		if !errors.Is(err, os.ErrPermission) {
			return nil, e, fmt.Errorf("open an ICMP socket: %w", err)
		}
	}
	return nil, echo{}, errNotPermitted
}

// ping returns once addr has answered an echo that carries a fresh nonce. The nonce and not the identifier tells replies apart:
// a ping socket replaces the identifier, and a raw one hears the replies to everybody's pings.
func (e echo) ping(conn *icmp.PacketConn, addr netip.Addr) error {
	nonce := make([]byte, 16)
	rand.Read(nonce)
	msg := icmp.Message{Type: e.request, Body: &icmp.Echo{
		ID: int(binary.BigEndian.Uint16(nonce)), Seq: 1, Data: nonce,
	}}
	out, err := msg.Marshal(nil)
	if err != nil {
		return fmt.Errorf("build an echo request: %w", err)
	}
	var to net.Addr = &net.UDPAddr{IP: addr.Unmap().AsSlice(), Zone: addr.Zone()}
	if e.raw {
		to = &net.IPAddr{IP: addr.Unmap().AsSlice(), Zone: addr.Zone()}
	}
	if _, err := conn.WriteTo(out, to); err != nil {
		return fmt.Errorf("send an echo request: %w", err)
	}
	in := make([]byte, 1500)
	for {
		n, _, err := conn.ReadFrom(in)
		if err != nil {
			return fmt.Errorf("wait for an echo reply: %w", err)
		}
		if got, err := icmp.ParseMessage(e.proto, in[:n]); err == nil && got.Type == e.reply {
			if body, ok := got.Body.(*icmp.Echo); ok && bytes.Equal(body.Data, nonce) {
				return nil
			}
		}
	}
}
