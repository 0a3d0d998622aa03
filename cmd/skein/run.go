package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/internal/node"
)

// runCommand is `skein run FILE`: the first thing that a newcomer types.
func (c *cli) runCommand() *cobra.Command {
	var drain time.Duration
	var metrics string
	var verbose bool
	var certs []string
	cmd := &cobra.Command{
		Use:     "run FILE",
		GroupID: groupNode,
		Short:   "Serve one file in the foreground: no cluster, nothing to prepare",
		Long: `Serve the configuration in FILE on this host, in the foreground. Frontends say where they listen with
bind = ["127.0.0.1"]; virtual addresses need a cluster (see "skein cluster init").

Certificates that FILE names come from PEM files: --certificate shop.example.com=chain.pem,key.pem

SIGHUP reads FILE and the certificates again: what is wrong is printed, and the old configuration goes on serving.
SIGUSR1 and SIGHUP open the access log's file anew, after it was moved away.
SIGTERM or Ctrl-C stops accepting, lets what is under way finish, and ends.`,
		Args: args("FILE"),
		RunE: func(cmd *cobra.Command, a []string) error {
			files, err := certificateFiles(certs)
			if err != nil {
				return err
			}
			return c.runSingle(cmd.Context(), a[0], files, metrics, drain, verbose)
		},
	}
	cmd.Flags().DurationVar(&drain, "drain", 30*time.Second, "how long what is under way may take after SIGTERM")
	cmd.Flags().StringArrayVar(&certs, "certificate", nil, "a certificate, as NAME=FILE[,FILE...]: chain and key in PEM; may be given more than once")
	cmd.Flags().StringVar(&metrics, "metrics", "", "where Prometheus finds this node, as in 127.0.0.1:7942")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log every change of state, debugging details too")
	return cmd
}

// certificateFiles reads the values of --certificate.
func certificateFiles(values []string) ([]node.CertificateFiles, error) {
	var all []node.CertificateFiles
	for _, v := range values {
		name, files, ok := strings.Cut(v, "=")
		if !ok || name == "" || files == "" {
			return nil, usagef("write it as in --certificate shop.example.com=chain.pem,key.pem", "--certificate %q makes no sense", v)
		}
		all = append(all, node.CertificateFiles{Name: name, Files: strings.Split(files, ",")})
	}
	return all, nil
}

func (c *cli) runSingle(ctx context.Context, file string, certs []node.CertificateFiles, metrics string, drain time.Duration, verbose bool) error {
	if err := checkDrain(drain); err != nil {
		return err
	}
	var shown net.Listener
	if metrics != "" {
		var err error
		if _, _, err = net.SplitHostPort(metrics); err != nil {
			return usagef("write it as in --metrics 127.0.0.1:7942", "--metrics %q makes no sense", metrics)
		}
		if shown, err = net.Listen("tcp", metrics); err != nil {
			return failed(fmt.Errorf("show metrics: %w", err))
		}
		defer shown.Close()
	}
	calmGC(ctx)
	s, diags, err := node.OpenSingle(file, certs, c.logger(verbose))
	c.printFound(diags)
	if err != nil {
		return failed(err)
	}
	defer onSignal(func(sig os.Signal) {
		s.ReopenLog()
		if sig == syscall.SIGUSR1 {
			return
		}
		diags, err := s.Reload()
		c.printFound(diags)
		if err != nil {
			c.complain(err.Error(), "the old configuration goes on serving; mend the file and send SIGHUP again")
			return
		}
		fmt.Fprintf(c.errOut, "skein: %s is in force\n", file)
	}, syscall.SIGUSR1, syscall.SIGHUP)()
	for _, l := range s.Listeners() {
		fmt.Fprintf(c.errOut, "skein: serving %s on %v\n", l.Protocol(), l.Addr)
	}
	if shown != nil {
		fmt.Fprintf(c.errOut, "skein: metrics on http://%v/metrics\n", shown.Addr())
		mctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // while it drains, too
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if err := s.ServeMetrics(mctx, shown, version().Version); err != nil {
				c.complain(err.Error(), "")
			}
		}()
		defer func() { cancel(); <-ended }()
	}
	return s.Run(ctx, drain)
}

// checkDrain checks what --drain says of an agent's end.
func checkDrain(d time.Duration) error {
	if d < 0 {
		return usagef("give --drain a time, as in 30s; 0s cuts off what is under way", "what is under way cannot take %v", d)
	}
	return nil
}

// onSignal calls f for each of these signals, one at a time, until the function that it returns is called.
func onSignal(f func(os.Signal), signals ...os.Signal) (stop func()) {
	came := make(chan os.Signal, 8) // none is lost behind several of another kind
	signal.Notify(came, signals...)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case sig := <-came:
				f(sig)
			}
		}
	}()
	return func() {
		signal.Stop(came)
		close(done)
		<-ended
	}
}

// logger writes to standard error, for a person or for the journal.
func (c *cli) logger(verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(c.errOut, &slog.HandlerOptions{Level: level}))
}
