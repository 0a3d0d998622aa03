package config

import (
	"fmt"
	"strings"
)

// FrontendTLS is how a frontend ends TLS.
type FrontendTLS struct {
	Ports        []uint16 // https (HTTP) or tls (TCP)
	Certificates []string // names in the certificate store; the first is for clients that ask for no name, or an unknown one
	StrictNames  bool     // such clients get an alert instead
	MinVersion   TLSVersion
	Redirect     bool // what comes to the frontend's http ports is sent to the first of Ports
}

// TLSVersion is a version of the protocol.
type TLSVersion uint8

const (
	TLS12 TLSVersion = iota + 1 // with forward secrecy and authenticated ciphers only
	TLS13
)

func (v TLSVersion) String() string {
	switch v {
	case TLS12:
		return "1.2"
	case TLS13:
		return "1.3"
	}
	return "unknown"
}

// CertificateUse is a place where a configuration names a certificate.
type CertificateUse struct{ Frontend, Certificate string }

// CertificateUses returns every place where c names a certificate, in written order.
func (c *Config) CertificateUses() []CertificateUse {
	var uses []CertificateUse
	for _, f := range c.Frontends {
		if f.TLS == nil {
			continue
		}
		for _, name := range f.TLS.Certificates {
			uses = append(uses, CertificateUse{f.Name, name})
		}
	}
	return uses
}

// describePorts writes what a frontend listens on: "http 80, https 443".
func describePorts(f *Frontend) string {
	var parts []string
	if len(f.Ports) > 0 {
		parts = append(parts, fmt.Sprintf("%s %s", f.Mode, join(f.Ports)))
	}
	if f.TLS != nil {
		word := "https"
		if f.Mode == TCP {
			word = "tls"
		}
		parts = append(parts, word+" "+join(f.TLS.Ports))
	}
	return strings.Join(parts, ", ")
}

// describeTLS are the attributes of a frontend that concern TLS, for Diff.
func describeTLS(f *Frontend) []attribute {
	attrs := []attribute{{"certificates", ""}, {"redirect", ""}, {"tls min_version", ""}, {"tls strict_names", ""}, {"timeouts handshake", ""}}
	if t := f.TLS; t != nil {
		attrs[0].value = strings.Join(t.Certificates, ", ")
		if t.Redirect {
			attrs[1].value = "https"
		}
		attrs[2].value, attrs[3].value = t.MinVersion.String(), yes(t.StrictNames)
		attrs[4].value = shortDuration(f.Timeouts.Handshake)
	}
	return attrs
}
