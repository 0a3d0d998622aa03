package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/api/client"
)

func (c *cli) certCommand() *cobra.Command {
	noun := &cobra.Command{
		Use:     "cert",
		Short:   "Certificates: import, list, show, remove",
		GroupID: groupObjects,
		Long: `Certificates that frontends show (certificates = ["NAME"]). They are stored in the cluster, their keys encrypted,
and are on every node at once; what is imported again is in use with the next handshake, without a reload.`,
	}
	ls := listCommandOf(c, "What is stored, for which names, and until when", (*client.Client).Certificates, func(l *api.CertificateList) view {
		return view{
			doc: l,
			draw: func(wide bool) {
				c.drawList(c.certificateTable(l.Certificates, wide), l.AsOf, "no certificate is stored")
			},
			names: func() []string {
				return names(l.Certificates, func(cs api.CertificateStatus) string { return cs.Name })
			},
		}
	})
	noun.AddCommand(c.certImportCommand(), ls, c.certShowCommand(), c.certRemoveCommand())
	return noun
}

func (c *cli) certImportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import NAME FILE...",
		Short: "Store a certificate with its key, or replace one",
		Long: `Store a certificate under NAME. The files are PEM: the certificate, those of its issuers, and the private key, in any
order and in as many files as you like. They are checked (does the key match, is the chain complete, is anything about to
expire) before anything is stored.

Under one name there may be an ECDSA and an RSA certificate: import both at once, or one after the other. What is imported
replaces what there was of the same kind of key.`,
		Args:              args("NAME", "FILE..."),
		ValidArgsFunction: c.completeCertImport,
		RunE: func(cmd *cobra.Command, a []string) error {
			var req api.CertificateRequest
			for _, path := range a[1:] {
				name, text, err := c.readText(path, "certificate")
				if err != nil {
					return err
				}
				req.Files = append(req.Files, api.CertificateFile{Name: name, PEM: string(text)})
			}
			ctx, cancel := bounded(cmd)
			defer cancel()
			waiting := c.progress("waiting for the cluster to store it")
			done, err := c.node().ImportCertificate(ctx, a[0], req)
			waiting.stop()
			if err != nil {
				return err
			}
			return c.show(view{
				doc: done,
				draw: func(wide bool) {
					c.drawTable(c.certificateTable([]api.CertificateStatus{done.CertificateStatus}, wide))
					p := painter(c.color(c.outTTY))
					for _, w := range done.Warnings {
						fmt.Fprintf(c.out, "%s %s\n", p.paint(warn, "warning:"), clean(w))
					}
				},
				names: func() []string { return []string{done.Name} },
			})
		},
	}
}

// completeCertImport offers known names first, and files after that.
func (c *cli) completeCertImport(cmd *cobra.Command, given []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return c.complete(1, c.certificateNames)(cmd, given, word)
}

func (c *cli) certShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "One certificate with its chains, but never its keys",
		Args:              args("NAME"),
		ValidArgsFunction: c.complete(1, c.certificateNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx, cancel := bounded(cmd)
			defer cancel()
			d, err := c.node().Certificate(ctx, a[0])
			if err != nil {
				return err
			}
			return c.show(view{
				doc:   d,
				draw:  func(wide bool) { c.drawCertificate(d, wide) },
				names: func() []string { return []string{d.Name} },
			})
		},
	}
}

func (c *cli) certRemoveCommand() *cobra.Command {
	var algorithm string
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Forget a certificate that no frontend names",
		Long: `Forget a certificate. One that the configuration names is refused. With --key, only the chain of that kind of key goes
(ecdsa, ed25519 or rsa), while another one stays.`,
		Args:              args("NAME"),
		ValidArgsFunction: c.complete(1, c.certificateNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx, cancel := bounded(cmd)
			defer cancel()
			if !yes {
				d, err := c.node().Certificate(ctx, a[0])
				if err != nil {
					return err
				}
				fmt.Fprintf(c.errOut, "This forgets %s, imported by %s, and its key for good.\n", removed(d.Name, algorithm), clean(d.By))
				if err := c.confirm(cmd.Context(), "remove it?"); err != nil {
					return err
				}
			}
			act, end := bounded(cmd) // the question may have taken its time
			defer end()
			done, err := c.node().RemoveCertificate(act, a[0], algorithm)
			if err != nil {
				return err
			}
			return c.show(view{
				doc:   done,
				draw:  func(bool) { fmt.Fprintf(c.out, "%s is removed\n", removed(done.Name, algorithm)) },
				names: func() []string { return []string{done.Name} },
			})
		},
	}
	cmd.Flags().StringVar(&algorithm, "key", "", "remove only the chain of this kind of key: ecdsa, ed25519 or rsa")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// removed is what goes: a certificate, or one chain of it.
func removed(name, algorithm string) string {
	if algorithm != "" {
		return fmt.Sprintf("the %s chain of certificate %q", algorithm, name)
	}
	return fmt.Sprintf("certificate %q", name)
}

// certificateTable draws certificates, a row for each chain.
func (c *cli) certificateTable(certs []api.CertificateStatus, wide bool) *table {
	head := []string{"CERTIFICATE", "KEY", "ENDS", "LEFT", "NAMES", "USED BY"}
	if wide {
		head = append(head, "ISSUER", "CHAIN", "IMPORTED BY", "SHA-256")
	}
	t := newTable(head...)
	for _, cs := range certs {
		for i, ch := range cs.Chains {
			name := cs.Name
			if i > 0 {
				name = ""
			}
			if ch.Error != "" {
				t.row(name, toned(bad, "unreadable"), "", "", clean(ch.Error), strings.Join(cs.UsedBy, ", "))
				continue
			}
			cells := []any{name, ch.Key, ch.NotAfter.UTC().Format(time.DateOnly), c.leftCell(ch), clean(few(ch.Names, 3)), strings.Join(cs.UsedBy, ", ")}
			if wide {
				issuer := ch.Issuer
				if ch.SelfSigned {
					issuer = "itself"
				}
				cells = append(cells, clean(issuer), ch.Length, clean(cs.By), ch.Fingerprint[:min(16, len(ch.Fingerprint))])
			}
			t.row(cells...)
		}
	}
	return t
}

// few is the first n of a list, and how many more there are.
func few(list []string, n int) string {
	if len(list) <= n {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:n], ", "), len(list)-n)
}

// leftCell is how long a chain will be good.
func (c *cli) leftCell(ch api.ChainStatus) cell {
	left, life := ch.NotAfter.Sub(c.now()), ch.NotAfter.Sub(ch.NotBefore)
	days := int(left.Hours() / 24)
	switch {
	case left <= 0:
		return toned(bad, "expired")
	case left < 48*time.Hour:
		return toned(bad, fmt.Sprintf("%dh", int(left.Hours())))
	case left < life/3 && days < 30:
		return toned(warn, fmt.Sprintf("%dd", days))
	}
	return toned(good, fmt.Sprintf("%dd", days))
}

// drawCertificate writes one certificate; wide: with its chains.
func (c *cli) drawCertificate(d *api.CertificateDocument, wide bool) {
	p := painter(c.color(c.outTTY))
	used := "no frontend"
	if len(d.UsedBy) > 0 {
		used = list(d.UsedBy)
	}
	fmt.Fprintf(c.out, "certificate %q, used by %s, imported by %s %s\n", d.Name, used, clean(d.By), since(c.ago(d.At)))
	for _, ch := range d.Chains {
		fact := func(name, value string) {
			fmt.Fprintf(c.out, "  %s %s\n", p.paint(dim, fmt.Sprintf("%-8s", name)), clean(value))
		}
		fmt.Fprintf(c.out, "\n%s\n", ch.Key)
		fact("names", strings.Join(ch.Names, ", "))
		issuer := ch.Issuer
		if ch.SelfSigned {
			issuer = "itself"
		}
		fact("issuer", issuer)
		left := c.leftCell(ch)
		fmt.Fprintf(c.out, "  %s %s to %s, %s\n", p.paint(dim, "valid   "), ch.NotBefore.UTC().Format(time.DateOnly), ch.NotAfter.UTC().Format(time.DateOnly),
			p.paint(left.tone, left.text))
		fact("serial", ch.Serial)
		fact("sha-256", ch.Fingerprint)
		fact("chain", count(ch.Length, "certificate"))
		if wide {
			fmt.Fprint(c.out, ch.Chain)
		}
	}
	c.drawStale(d.AsOf)
}
