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
	args func(dir string, threads int) []string
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
		{name: "haproxy", base: 8100, args: func(string, int) []string {
			return []string{"/usr/sbin/haproxy", "-db", "-f", "haproxy.cfg"}
		}},
		{name: "skein", base: 8200, as: untuned, args: func(string, int) []string {
			return []string{skein, "run", "skein.hcl", "--certificate", "ecdsa=ecdsa.pem", "--certificate", "rsa=rsa.pem"}
		}},
		{name: "nginx", base: 8300, as: untuned, args: func(dir string, threads int) []string {
			return []string{"/usr/sbin/nginx", "-p", dir, "-e", "stderr", "-c", filepath.Join(dir, "nginx.conf"), "-g",
				fmt.Sprintf("user root; worker_processes %d;", threads)}
		}},
	}
}

// files is the configuration of every peer for the rows, by peer and file.
func files() map[string]map[string]string {
	return map[string]map[string]string{
		"haproxy": {"haproxy.cfg": peerFile("haproxy.cfg")},
		"skein":   {"skein.hcl": peerFile("skein.hcl")},
		"nginx":   {"nginx.conf": peerFile("nginx.conf")},
	}
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
	args := p.args(dir, threads)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "THREADS="+strconv.Itoa(threads), "DIR="+dir)
	return cmd, nil
}

// needed are the services that a peer must offer before it is measured.
var needed = []service{web, shop, tcp, tlsECDSA, tlsRSA}

func (s service) String() string {
	return strings.Fields("web bodies shop tcp bulk tls tls-rsa")[s]
}
