package load

import (
	"crypto/tls"
	"net"
	"time"
)

// Hold opens the connections of a job, asks once on each, one after the other, and keeps them. It calls ready, with a function that
// asks once more on a connection, and closes them when ready returns.
func Hold(j Job, ready func(ask func(i int) error) error) error {
	conns := make([]net.Conn, j.Conns)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	ask := func(i int) error {
		if err := conns[i].SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		_, err := checkOne(conns[i], j, j.Requests[0])
		return err
	}
	for i := range conns {
		c, err := net.DialTimeout("tcp4", j.Addr, 5*time.Second)
		if err != nil {
			return err
		}
		if conns[i] = c; j.TLS {
			conns[i] = tls.Client(c, tlsConfig(nil))
		}
		if err := ask(i); err != nil {
			return err
		}
	}
	return ready(ask)
}
