package api

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/state/cert"
)

// CertificateStatus is a certificate of the store. Keys are never shown.
type CertificateStatus struct {
	Name     string        `json:"name"`
	Chains   []ChainStatus `json:"chains"`
	NotAfter time.Time     `json:"not_after"` // of the chain that ends first
	DaysLeft int           `json:"days_left"` // until then; negative: since then
	UsedBy   []string      `json:"used_by"`   // frontends
	By       string        `json:"by,omitempty"`
	At       time.Time     `json:"at,omitzero"` // of the last import
}

// ChainStatus is a chain of a certificate, by what its leaf says.
type ChainStatus struct {
	Algorithm   string    `json:"algorithm"` // "ecdsa", "ed25519", "rsa"
	Key         string    `json:"key"`       // "ECDSA P-256"
	Names       []string  `json:"names"`
	Issuer      string    `json:"issuer"`
	SelfSigned  bool      `json:"self_signed"`
	Serial      string    `json:"serial"`
	Fingerprint string    `json:"fingerprint"` // SHA-256
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	Length      int       `json:"length"`
	Chain       string    `json:"chain,omitempty"` // PEM; of one certificate alone
	Error       string    `json:"error,omitempty"` // why it cannot be read
}

// CertificateList and CertificateDocument are the documents at /v1/certificates and below.
type (
	CertificateList struct {
		AsOf         AsOf                `json:"as_of"`
		Certificates []CertificateStatus `json:"certificates"`
	}
	CertificateDocument struct {
		AsOf AsOf `json:"as_of"`
		CertificateStatus
	}
)

// CertificateRequest imports a certificate: PEM files, chains and keys in any order.
type CertificateRequest struct {
	Files []CertificateFile `json:"files"`
}

// CertificateFile is one of them.
type CertificateFile struct {
	Name string `json:"name"` // for messages only
	PEM  string `json:"pem"`
}

// CertificateImported is the answer: what is stored under the name now, and what will not work for long or not for everybody.
type CertificateImported struct {
	CertificateStatus
	Warnings []string `json:"warnings"`
}

// CertificateRemoved is the answer to a removal.
type CertificateRemoved struct {
	Name string `json:"name"`
}

// certificateOf is a certificate as it stands in a view.
func certificateOf(v *state.View, c state.Certificate, now time.Time) CertificateStatus {
	cs := CertificateStatus{Name: c.Name, Chains: []ChainStatus{}, UsedBy: []string{}, By: c.By, At: c.At}
	for _, p := range c.Pairs {
		ch := ChainStatus{Algorithm: p.Algorithm, Names: []string{}}
		info, err := cert.InfoOf(p.Chain)
		if err != nil {
			ch.Error = err.Error()
		} else {
			ch.Key, ch.Names, ch.Issuer, ch.SelfSigned, ch.Serial = info.Key, info.Names, info.Issuer, info.SelfSigned, info.Serial
			ch.Fingerprint, ch.NotBefore, ch.NotAfter, ch.Length = info.Fingerprint, info.NotBefore, info.NotAfter, info.Length
			if cs.NotAfter.IsZero() || info.NotAfter.Before(cs.NotAfter) {
				cs.NotAfter = info.NotAfter
			}
		}
		cs.Chains = append(cs.Chains, ch)
	}
	cs.DaysLeft = int(math.Floor(cs.NotAfter.Sub(now).Hours() / 24))
	if v.Config != nil {
		for _, use := range v.Config.CertificateUses() {
			if use.Certificate == c.Name && !slices.Contains(cs.UsedBy, use.Frontend) {
				cs.UsedBy = append(cs.UsedBy, use.Frontend)
			}
		}
	}
	return cs
}

// Certificates are all certificates of a view, as they stand now.
func Certificates(v *state.View, now time.Time) []CertificateStatus { return certificatesOf(v, now) }

func certificatesOf(v *state.View, now time.Time) []CertificateStatus {
	out := []CertificateStatus{}
	for _, c := range v.Certificates {
		out = append(out, certificateOf(v, c, now))
	}
	return out
}

// When a certificate is about to end: a warning, a degraded cluster, an alarm that cannot wait. For certificates that live shorter
// than three months, in proportion.
const (
	expiryWarns    = 30 * 24 * time.Hour
	expiryDegrades = 14 * 24 * time.Hour
	expiryAlarms   = 3 * 24 * time.Hour
)

// judgeCertificates warns of what ends soon. One that nobody uses is nobody's trouble.
func (s *Status) judgeCertificates() {
	for _, c := range s.Certificates {
		if len(c.UsedBy) == 0 {
			continue
		}
		for _, ch := range c.Chains {
			left, life := ch.NotAfter.Sub(s.AsOf.At), ch.NotAfter.Sub(ch.NotBefore)
			what := fmt.Sprintf("certificate %q (%s)", c.Name, ch.Key)
			hint := fmt.Sprintf("renew it, then `skein cert import %s FILE...`: nothing needs a reload", c.Name)
			ends := fmt.Sprintf("ends in %s, on %s", days(left), ch.NotAfter.UTC().Format(time.DateOnly))
			switch {
			case ch.Error != "":
				s.because(Degraded, "%s cannot be read", what)
				s.alarm(Critical, hint, "%s cannot be read: %s", what, ch.Error)
			case left <= 0:
				s.because(Down, "%s expired", what)
				s.alarm(Critical, hint, "%s expired on %s: clients refuse it", what, ch.NotAfter.UTC().Format(time.DateOnly))
			case left < min(expiryAlarms, life/30):
				s.because(Degraded, "%s %s", what, ends)
				s.alarm(Critical, hint, "%s %s", what, ends)
			case left < min(expiryDegrades, life/6):
				s.because(Degraded, "%s %s", what, ends)
				s.alarm(Warning, hint, "%s %s", what, ends)
			case left < min(expiryWarns, life/3):
				s.alarm(Warning, hint, "%s %s", what, ends)
			}
		}
	}
}

// days writes a time as people count it.
func days(d time.Duration) string {
	n := int(d.Hours() / 24)
	switch {
	case n > 1:
		return fmt.Sprintf("%d days", n)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d minutes", int(d.Minutes()))
}

func (s *Server) getCertificates(w http.ResponseWriter, r *http.Request) error {
	return answer(w, CertificateList{AsOf: s.asOf(), Certificates: certificatesOf(s.opts.Views.Get(), time.Now())})
}

func (s *Server) getCertificate(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("certificate")
	v := s.opts.Views.Get()
	c, ok := v.Certificate(name)
	if !ok {
		return unknownCertificate(v, name)
	}
	d := CertificateDocument{AsOf: s.asOf(), CertificateStatus: certificateOf(v, c, time.Now())}
	for i, p := range c.Pairs {
		d.Chains[i].Chain = string(p.Chain)
	}
	return answer(w, d)
}

func unknownCertificate(v *state.View, name string) error {
	return errorf(CodeNotFound, suggest(name, certificateNames(v), "`skein cert list` shows all"), "there is no certificate %q", name)
}

func certificateNames(v *state.View) []string {
	var names []string
	for _, c := range v.Certificates {
		names = append(names, c.Name)
	}
	return names
}

// putCertificate imports a certificate. Its keys are sealed here, before anything of them leaves this node.
func (s *Server) putCertificate(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("certificate")
	var req CertificateRequest
	if err := decode(r.Body, &req); err != nil {
		return err
	}
	if !config.GoodName(name) {
		return errorf(CodeBadRequest, "use letters, digits, '-', '_' and '.', at most 63, a letter or digit first: it need not be a host's name",
			"%q cannot be the name of a certificate", name)
	}
	var files []cert.File
	for _, f := range req.Files {
		files = append(files, cert.File{Name: f.Name, PEM: []byte(f.PEM)})
	}
	pairs, warnings, err := cert.Read(files, time.Now())
	if err != nil {
		var no *cert.Error
		if errors.As(err, &no) {
			return errorf(CodeBadCertificate, no.Hint, "%s; nothing was imported", no.What)
		}
		return err
	}
	cmd := state.PutCertificate{Name: name, By: s.author(r), At: time.Now()}
	var kinds []string
	for _, p := range pairs {
		sealed, err := s.opts.Seal(cert.KeyPurpose(name, p.Algorithm), p.Key)
		if err != nil {
			return errorf(CodeConflict, "found the cluster anew with this version, or ask another node", "the key cannot be stored: %v", err)
		}
		cmd.Pairs = append(cmd.Pairs, state.CertificatePair{Algorithm: p.Algorithm, Chain: p.Chain, Key: sealed})
		kinds = append(kinds, p.Algorithm)
	}
	if _, err := s.propose(r.Context(), cmd); err != nil {
		return err
	}
	s.opts.Log.Info("certificate imported", "name", name, "keys", strings.Join(kinds, "+"), "by", cmd.By)
	v := s.opts.Views.Get()
	c, ok := v.Certificate(name)
	if !ok {
		return errorf(CodeConflict, "", "certificate %q was removed meanwhile", name)
	}
	if warnings == nil {
		warnings = []string{}
	}
	return answer(w, CertificateImported{CertificateStatus: certificateOf(v, c, time.Now()), Warnings: warnings})
}

func (s *Server) deleteCertificate(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("certificate")
	v := s.opts.Views.Get()
	c, ok := v.Certificate(name)
	if !ok {
		return unknownCertificate(v, name)
	}
	if used := certificateOf(v, c, time.Now()).UsedBy; len(used) > 0 && r.URL.Query().Get("algorithm") == "" {
		return errorf(CodeConflict, "take it out of `certificates` there and `skein apply` first; to replace it, import it again",
			"certificate %q is used by frontend %q", name, used[0])
	}
	if _, err := s.propose(r.Context(), state.RemoveCertificate{Name: name, Algorithm: r.URL.Query().Get("algorithm")}); err != nil {
		return err
	}
	s.opts.Log.Info("certificate removed", "name", name, "algorithm", r.URL.Query().Get("algorithm"), "by", s.author(r))
	return answer(w, CertificateRemoved{Name: name})
}

// certificatesThere refuses a configuration that names a certificate that is not in the store.
func (s *Server) certificatesThere(file string, c *config.Config) error {
	v := s.opts.Views.Get()
	for _, use := range c.CertificateUses() {
		if _, ok := v.Certificate(use.Certificate); ok {
			continue
		}
		hint := suggest(use.Certificate, certificateNames(v), "")
		if hint == "" {
			hint = fmt.Sprintf("import it first: skein cert import %s FILE...", use.Certificate)
		}
		return errorf(CodeInvalidConfig, hint, "%s: frontend %q names certificate %q, which is not in the store; nothing was changed",
			file, use.Frontend, use.Certificate)
	}
	return nil
}
