package sim

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/config"
	data "github.com/skeinlb/skein/engine"
)

// selfSigned makes a certificate with that serial number, and its key, in one file.
func selfSigned(w *World, serial int64) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.Fatalf("make a key: %v", err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"shop.example.com"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		w.Fatalf("make a certificate: %v", err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.Fatalf("write a key: %v", err)
	}
	var s strings.Builder
	pem.Encode(&s, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	pem.Encode(&s, &pem.Block{Type: "PRIVATE KEY", Bytes: b})
	return s.String()
}

func importCert(w *World, n *Node, text string) error {
	cl := n.client()
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := cl.ImportCertificate(ctx, "shop", api.CertificateRequest{Files: []api.CertificateFile{{Name: "shop.pem", PEM: text}}})
	return err
}

// secure is a frontend that shows the certificate, beside those of edge.
const secure = `
frontend "secure" {
  vip          = "public"
  https        = 443
  certificates = ["shop"]
  backend      = "shop"
}
`

// shows waits until nodes have a certificate, and one and the same key for session tickets, which it returns.
func shows(w *World, serial string, nodes ...*Node) (newest data.TicketKey) {
	w.tb.Helper()
	w.Until("certificate "+serial+" is everywhere", 10*time.Second, func() bool {
		newest = data.TicketKey{}
		for _, n := range nodes {
			got, key := n.loaded().tls("shop")
			if newest == (data.TicketKey{}) {
				newest = key
			}
			if got != serial || key != newest || key == (data.TicketKey{}) {
				return false
			}
		}
		return true
	})
	return newest
}

// A certificate goes to every node, opened with a key that none of them has ever seen in the log: those that were there, one that
// joins later, one that restarts and one that was away. So do the keys of session tickets, so that a client resumes anywhere; and a
// new leader does not change them before their time.
func TestCertificatesAndTicketKeysReachEveryNode(t *testing.T) {
	inBubble(t, 31, 3, func(w *World, c *Clients) {
		if err := c.Apply(w.Nodes[1], "# too early\n"+edge+secure); err == nil || !strings.Contains(err.Error(), `certificate "shop"`) {
			w.Fatalf("a certificate that is not there: %v", err)
		}
		if err := importCert(w, w.Nodes[1], selfSigned(w, 1)); err != nil {
			w.Fatalf("import: %v", err)
		}
		if err := c.Apply(w.Nodes[2], edge+secure); err != nil {
			w.Fatalf("apply: %v", err)
		}
		first := shows(w, "1", w.Nodes...)
		w.Join("lb4", config.Balancer)
		w.votes()
		if got := shows(w, "1", w.Nodes...); got != first {
			w.Fatalf("a node that joined has changed the ticket key")
		}

		old := w.Leader()
		old.powerOff()
		var left []*Node
		for _, n := range w.Nodes {
			if n != old {
				left = append(left, n)
			}
		}
		w.Until("another one leads", 10*time.Second, func() bool { l := w.Leader(); return l != nil && l != old })
		if err := importCert(w, left[0], selfSigned(w, 2)); err != nil {
			w.Fatalf("import: %v", err)
		}
		if got := shows(w, "2", left...); got != first {
			w.Fatalf("a new leader has changed the ticket key")
		}
		old.boot()
		w.Settled(15 * time.Second)
		if got := shows(w, "2", w.Nodes...); got != first {
			w.Fatalf("a node that came back has changed the ticket key")
		}
		// What is not sealed stands in a snapshot as base64 of PEM: the CA's key does, on purpose, and no other.
		pemKey := base64.StdEncoding.EncodeToString([]byte("-----BEGIN PRIVATE KEY--"))
		for _, n := range w.Nodes {
			if k := strings.Count(string(n.snapshot()), pemKey); k > 1 {
				w.Fatalf("%s has %d private keys in its state", n.Name, k)
			}
		}
		c.Check()
	})
}
