package h1

import "bytes"

// maxHost is the longest name that the DNS knows (RFC 1035 2.3.4), with the dot of the root.
const maxHost = 254

// splitHost checks uri-host [ ":" port ] and cuts it in two. User information, a bad port and an empty host are refused; an
// empty port is no port.
func splitHost(b []byte) (authority, host []byte, ok bool) {
	host = b
	var port []byte
	if len(b) > 0 && b[0] == '[' {
		i := bytes.IndexByte(b, ']')
		if i < 0 || !isIPv6(b[1:i]) {
			return nil, nil, false
		}
		host = b[:i+1]
		switch port = b[i+1:]; {
		case len(port) == 0:
		case port[0] != ':':
			return nil, nil, false
		default:
			port = port[1:]
		}
	} else {
		if i := bytes.IndexByte(b, ':'); i >= 0 {
			host, port = b[:i], b[i+1:]
		}
		if !isRegName(host) {
			return nil, nil, false
		}
	}
	if len(port) == 0 {
		return host, host, true
	}
	if n := decimal(port); len(port) > 5 || n < 1 || n > 65535 {
		return nil, nil, false
	}
	return b, host, true
}

// isRegName checks a name or an IPv4 address, percent-encoding included.
func isRegName(b []byte) bool {
	if len(b) == 0 || len(b) > maxHost {
		return false
	}
	for i, c := range b {
		if class[c]&isHost == 0 {
			return false
		}
		if c == '%' && (i+2 >= len(b) || class[b[i+1]]&class[b[i+2]]&isHex == 0) {
			return false
		}
	}
	return true
}

// isIPv6 checks an address without brackets and zone. (netip.ParseAddr wants a string, which would have to be allocated.)
func isIPv6(b []byte) bool {
	groups, gap := 0, false
	if bytes.HasPrefix(b, []byte("::")) {
		gap, b = true, b[2:]
	}
	for len(b) > 0 {
		n := 0
		for n < len(b) && class[b[n]]&isHex != 0 {
			n++
		}
		if n == 0 {
			return false
		}
		if n < len(b) && b[n] == '.' {
			groups += 2
			return isIPv4(b) && (groups == 8 && !gap || groups < 8 && gap)
		}
		if n > 4 {
			return false
		}
		groups++
		if b = b[n:]; len(b) == 0 {
			break
		}
		if b[0] != ':' || len(b) == 1 {
			return false
		}
		if b = b[1:]; b[0] == ':' {
			if gap {
				return false
			}
			gap, b = true, b[1:]
		}
	}
	return groups == 8 && !gap || groups < 8 && gap
}

func isIPv4(b []byte) bool {
	for i := range 4 {
		n := 0
		for n < len(b) && b[n]-'0' <= 9 {
			n++
		}
		if n == 0 || n > 3 || n > 1 && b[0] == '0' || decimal(b[:n]) > 255 {
			return false
		}
		if b = b[n:]; i < 3 {
			if len(b) == 0 || b[0] != '.' {
				return false
			}
			b = b[1:]
		}
	}
	return len(b) == 0
}
