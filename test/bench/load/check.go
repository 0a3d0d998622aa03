package load

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Check sends every request of a job once, as any client would, and compares all of the answer. It returns the cookies that were set,
// as a client sends them back.
func Check(j Job) (cookie string, err error) {
	for _, head := range j.Requests {
		c, err := net.DialTimeout("tcp4", j.Addr, 5*time.Second)
		if err != nil {
			return "", err
		}
		if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return "", err
		}
		if j.TLS {
			c = tls.Client(c, tlsConfig(nil))
		}
		cookie, err = checkOne(c, j, head)
		c.Close()
		if err != nil {
			return "", fmt.Errorf("%s %q: %w", j.Addr, head[:bytes.IndexByte(head, '\r')], err)
		}
	}
	return cookie, nil
}

func checkOne(c net.Conn, j Job, head []byte) (string, error) {
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(append(bytes.Clone(head), bytes.Repeat([]byte("x"), j.Upload)...))
		sent <- err
	}()
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return "", err
	}
	if err := <-sent; err != nil {
		return "", err
	}
	if r.StatusCode != 200 || string(body) != strings.Repeat("x", j.Want) {
		return "", fmt.Errorf("answered %s with %d bytes, want 200 with %d", r.Status, len(body), j.Want)
	}
	if closes := r.Close; closes != j.Close {
		return "", fmt.Errorf("the connection's end is announced: %v, want %v", closes, j.Close)
	}
	var cookies []string
	for _, k := range r.Cookies() {
		cookies = append(cookies, k.Name+"="+k.Value)
	}
	return strings.Join(cookies, "; "), nil
}
