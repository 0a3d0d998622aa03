package conform

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/internal/lab"
)

// Proxy is a program under test.
type Proxy struct {
	Name   string
	Binary string
	config string                                 // with %listen%, %origin% and %dir%
	args   func(dir, file string) (args []string) // to run it in the foreground with the configuration in file
	tls    bool                                   // it ends TLS, with what stands in cert.pem in its directory
}

// Skein is skein, from that binary, with the least configuration that serves.
func Skein(binary string) Proxy {
	return Proxy{Name: "skein", Binary: binary, config: `
frontend "web" {
  bind    = ["127.0.0.1"]
  http    = %listen%
  backend = "s"
}
backend "s" {
  server "s1" { address = "127.0.0.1:%origin%" }
}
`, args: func(_, file string) []string { return []string{"run", file} }}
}

// SkeinTLS is the same behind TLS, which must make no difference.
func SkeinTLS(binary string) Proxy {
	return Proxy{Name: "skein https", Binary: binary, tls: true, config: `
frontend "web" {
  bind         = ["127.0.0.1"]
  https        = %listen%
  certificates = "conform"
  backend      = "s"
}
backend "s" {
  server "s1" { address = "127.0.0.1:%origin%" }
}
`, args: func(dir, file string) []string {
		return []string{"run", file, "--certificate", "conform=" + filepath.Join(dir, "cert.pem")}
	}}
}

// HAProxy is Debian's, with what its documentation recommends.
func HAProxy() Proxy {
	return Proxy{Name: "haproxy", Binary: "/usr/sbin/haproxy", config: `
global
    nbthread 1
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 5s
    timeout http-request 10s
    timeout http-keep-alive 10s
    http-reuse safe
frontend web
    bind 127.0.0.1:%listen%
    option forwardfor
    default_backend s
backend s
    server s1 127.0.0.1:%origin%
`, args: func(_, file string) []string { return []string{"-db", "-f", file} }}
}

// Nginx is Debian's, as a reverse proxy that keeps connections and lets WebSocket through, as its documentation has it.
func Nginx() Proxy {
	return Proxy{Name: "nginx", Binary: "/usr/sbin/nginx", config: `
worker_processes 1;
daemon off;
master_process off;
pid %dir%/nginx.pid;
error_log stderr crit;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path %dir%/body;
    proxy_temp_path %dir%/proxy;
    fastcgi_temp_path %dir%/fastcgi;
    uwsgi_temp_path %dir%/uwsgi;
    scgi_temp_path %dir%/scgi;
    map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
    upstream s { server 127.0.0.1:%origin% max_fails=0; keepalive 32; }
    server {
        listen 127.0.0.1:%listen%;
        location / {
            proxy_pass http://s;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }
    }
}
`, args: func(_, file string) []string { return []string{"-c", file} }}
}

// Running is a proxy with the origin behind it.
type Running struct {
	Judge
	cmd *exec.Cmd
	dir string
	log *bytes.Buffer
}

// Start runs p before an origin of its own and waits until it serves. It has one thread for connections: what a case leaves
// behind on a connection to the origin must meet the canary.
func Start(p Proxy) (*Running, error) {
	dir, err := os.MkdirTemp("", "conform-")
	if err != nil {
		return nil, err
	}
	r := &Running{dir: dir, log: &bytes.Buffer{}}
	if r.Origin, err = NewOrigin(); err != nil {
		r.Stop()
		return nil, err
	}
	port, err := lab.FreePort()
	if err != nil {
		r.Stop()
		return nil, err
	}
	r.Addr = fmt.Sprintf("127.0.0.1:%d", port)
	text := strings.NewReplacer("%listen%", strconv.Itoa(port), "%origin%", strconv.Itoa(r.Origin.Port()), "%dir%", dir).Replace(p.config)
	if r.TLS = p.tls; p.tls {
		if err := writeCertificate(filepath.Join(dir, "cert.pem")); err != nil {
			r.Stop()
			return nil, err
		}
	}
	file := filepath.Join(dir, "proxy.conf")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		r.Stop()
		return nil, err
	}
	cmd := exec.Command(p.Binary, p.args(dir, file)...)
	cmd.Stdout, cmd.Stderr = r.log, r.log
	if err := startOnOneCPU(cmd); err != nil {
		r.Stop()
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	r.cmd = cmd
	if err := r.serves(); err != nil {
		r.Stop()
		return nil, fmt.Errorf("%s does not serve: %w\n%s", p.Name, err, r.log)
	}
	return r, nil
}

// serves waits for the first answer.
func (r *Running) serves() error {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", r.Addr)
		if err == nil {
			c.Close()
			return nil
		}
		if time.Now().After(end) {
			return err
		}
	}
}

// Stop ends the proxy and the origin.
func (r *Running) Stop() {
	if r.cmd != nil {
		r.cmd.Process.Kill()
		r.cmd.Wait()
	}
	if r.Origin != nil {
		r.Origin.Close()
	}
	os.RemoveAll(r.dir)
}

// Log is what the proxy printed. To be called after Stop.
func (r *Running) Log() string { return r.log.String() }

// writeCertificate makes a certificate for an hour, with its key in the same file.
func writeCertificate(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"conform.test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("write a key: %w", err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	return os.WriteFile(path, text, 0o600)
}

// startOnOneCPU starts cmd with one CPU to run on, which it inherits from the thread that starts it.
func startOnOneCPU(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("read the CPU affinity: %w", err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("set the CPU affinity: %w", err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a killed test leaves nothing behind
	err := cmd.Start()
	if e := unix.SchedSetaffinity(0, &all); e != nil && err == nil {
		return fmt.Errorf("restore the CPU affinity: %w", e)
	}
	return err
}
