package proxy

import (
	"testing"
	"unsafe"
)

func TestAnIdleConnectionIsSmall(t *testing.T) {
	// What an idle keep-alive connection costs beside its socket: the structures alone, since everything else is on loan.
	const most = 1024
	t.Logf("client %d bytes, server %d bytes", unsafe.Sizeof(client{}), unsafe.Sizeof(server{}))
	if n := unsafe.Sizeof(client{}); n > most {
		t.Errorf("a client takes %d bytes, more than %d", n, most)
	}
	if n := unsafe.Sizeof(server{}); n > most/2 {
		t.Errorf("a connection to a server takes %d bytes, more than %d", n, most/2)
	}
}
