package main

import (
	"embed"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed peers
var peerFiles embed.FS

func peerFile(name string) string {
	b, err := peerFiles.ReadFile("peers/" + name)
	if err != nil {
		panic(err) // it is part of this program
	}
	return string(b)
}

// service is what a proxy offers on a port: the same in all three.
type service int

const (
	web    service = iota // small answers
	bodies                // large ones, with HAProxy's splicing
	shop                  // routes and a cookie
	tcp
	bulk // large ones, in TCP mode
	tlsECDSA
	tlsRSA
)

// peer is one of the programs compared.
type peer struct {
	name string
	base int                 // its ports begin here
	as   map[service]service // services that it has no port of its own for
	args func(files map[string]string, dir string, threads int) []string
}

func (p *peer) addr(s service) string {
	if other, ok := p.as[s]; ok {
		s = other
	}
	return fmt.Sprintf("127.0.0.1:%d", p.base+int(s))
}

const originPort = 8000

// peers returns the three, HAProxy first: it is what the others are held against.
func peers(skein string) []*peer {
	untuned := map[service]service{bodies: web, bulk: tcp}
	return []*peer{
		{name: "haproxy", base: 8100, args: func(files map[string]string, _ string, _ int) []string {
			args := []string{"/usr/sbin/haproxy", "-db", "-f", "haproxy.cfg"}
			for _, more := range []string{"haproxy-log.cfg", "haproxy-tls.cfg"} {
				if _, ok := files[more]; ok {
					args = append(args, "-f", more)
				}
			}
			return args
		}},
		{name: "skein", base: 8200, as: untuned, args: func(files map[string]string, _ string, _ int) []string {
			return []string{skein, "run", "skein.hcl"}
		}},
		{name: "nginx", base: 8300, as: untuned, args: func(_ map[string]string, dir string, threads int) []string {
			return []string{"/usr/sbin/nginx", "-p", dir, "-e", "stderr", "-c", filepath.Join(dir, "nginx.conf"), "-g",
				fmt.Sprintf("user root; worker_processes %d;", threads)}
		}},
	}
}

// abilities are what this skein can do of what not every skein can.
type abilities struct{ log, tls bool }

// ask finds out by asking skein whether it takes the words.
func ask(skein string) (a abilities, err error) {
	dir, err := os.MkdirTemp("", "skein-bench-")
	if err != nil {
		return a, err
	}
	defer os.RemoveAll(dir)
	takes := func(parts ...string) (bool, string) {
		var text string
		for _, p := range parts {
			if _, err := peerFiles.Open("peers/" + p); err != nil {
				return false, err.Error()
			}
			text += peerFile(p) + "\n"
		}
		file := filepath.Join(dir, "skein.hcl")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return false, err.Error()
		}
		out, err := exec.Command(skein, "check", file).CombinedOutput()
		return err == nil, string(out)
	}
	if ok, out := takes("skein.hcl"); !ok {
		return a, fmt.Errorf("%s check peers/skein.hcl: %s", skein, out)
	}
	a.log, _ = takes("skein.hcl", "skein-log.hcl")
	a.tls, _ = takes("skein.hcl", "skein-tls.hcl")
	return a, nil
}

func (a abilities) without() (w []string) {
	if !a.log {
		w = append(w, "access log")
	}
	if !a.tls {
		w = append(w, "TLS")
	}
	return w
}

// files returns the configuration of every peer for the rows, by peer and file.
func (a abilities) files() map[string]map[string]string {
	all := map[string]map[string]string{
		"haproxy": {"haproxy.cfg": peerFile("haproxy.cfg")},
		"skein":   {"skein.hcl": peerFile("skein.hcl")},
		"nginx":   {"nginx.conf": peerFile("nginx.conf"), "log.conf": "access_log off;\n", "stream-log.conf": ""},
	}
	if a.log {
		all["haproxy"]["haproxy-log.cfg"] = peerFile("haproxy-log.cfg")
		all["skein"]["skein.hcl"] += "\n" + peerFile("skein-log.hcl")
		all["nginx"]["log.conf"], all["nginx"]["stream-log.conf"] = peerFile("nginx-log.conf"), peerFile("nginx-stream-log.conf")
	}
	if a.tls {
		all["haproxy"]["haproxy-tls.cfg"] = peerFile("haproxy-tls.cfg")
		all["skein"]["skein.hcl"] += "\n" + peerFile("skein-tls.hcl")
		all["nginx"]["tls.conf"] = peerFile("nginx-tls.conf")
	}
	return all
}

// prepare writes a peer's files into a directory of its own, with the certificates, and returns the command.
func (p *peer) prepare(dir string, files, certs map[string]string, threads int) (*exec.Cmd, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	all := maps.Clone(files)
	maps.Copy(all, certs)
	for name, content := range all {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	args := p.args(files, dir, threads)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "THREADS="+strconv.Itoa(threads), "DIR="+dir)
	return cmd, nil
}

// services that a peer must offer before it is measured.
func (a abilities) services() []service {
	s := []service{web, shop, tcp}
	if a.tls {
		s = append(s, tlsECDSA, tlsRSA)
	}
	return s
}

func (s service) String() string {
	return strings.Fields("web bodies shop tcp bulk tls tls-rsa")[s]
}
