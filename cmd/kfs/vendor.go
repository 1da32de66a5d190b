package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kfs-project/kfs/builtins/component"
	"github.com/kfs-project/kfs/interp"
	"github.com/kfs-project/kfs/vendoring"
)

func newVendor() *cobra.Command {
	v := &vendorRun{}
	cmd := &cobra.Command{
		Use:   "vendor FILE...",
		Short: "Fetch the components that scripts name by URL",
		Long: `Vendor evaluates scripts and all of their pipelines, fetches what they name by
load_component(url = ...), and stores it under the root: a copy of each URL in
vendor/HOST/PATH, pinned by its SHA-256 in kfs.lock. Commit both: every other
command reads the copies, and none fetches.

A URL that has a copy as it was pinned is not fetched again. A copy that is
missing is fetched and has to be what was pinned. What the tasks of a graph
name by URL is fetched too.

A script may name other URLs with other settings, and other scripts may share
the root: pins of URLs that were not named stay, but with --prune.

Proxies are those of $HTTPS_PROXY, $HTTP_PROXY and $NO_PROXY; authorities for
TLS those of the system or of $SSL_CERT_FILE, and of --ca-file. A server that
is busy or breaks off is tried 3 times.`,
		Example: `  kfs vendor train.star
  kfs vendor train.star --check                 # in CI: nothing is missing or changed
  kfs vendor train.star --update                # pin what all URLs give now
  kfs vendor train.star --update=https://example.com/component.yaml
  kfs vendor pipelines/*.star --root . --prune  # and drop what none of them names`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%s: want one or more scripts, as in\n%s", cmd.Name(), cmd.Example)
			}
			for _, arg := range args {
				if strings.Contains(arg, "://") {
					return fmt.Errorf("%s: want scripts, got the URL %s: one URL is fetched anew by  --update=%[2]s", cmd.Name(), arg)
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return v.do(cmd, args) },
	}
	v.script.addFile(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&v.check, "check", false, "fetch and write nothing; exit status 2 if a copy or its pin is missing, or one was changed")
	flags.StringArrayVar(&v.update, "update", nil, "fetch anew and pin what there is now: all that the scripts name, or with =`URL` that one")
	flags.Lookup("update").NoOptDefVal = everyURL
	flags.BoolVar(&v.prune, "prune", false, "remove the pins, and their copies, that no FILE names with these settings")
	flags.StringVar(&v.client.CAFile, "ca-file", "", "PEM `file` of certificates of authorities to trust as well")
	flags.DurationVar(&v.client.Timeout, "timeout", 30*time.Second, "how long one try of one URL may take")
	return cmd
}

// everyURL is the value of --update without one.
const everyURL = "all"

// A vendorRun is one kfs vendor.
type vendorRun struct {
	script scriptFlags
	check  bool
	update []string
	prune  bool
	client vendoring.ClientConfig
}

// A vendorRoot is what has been found under one root.
type vendorRoot struct {
	dir    string
	files  []string
	copies *vendoring.Copies
}

func (v *vendorRun) do(cmd *cobra.Command, files []string) error {
	switch {
	case v.check && len(v.update) > 0:
		return errors.New("--check fetches nothing: it cannot stand beside --update")
	case v.client.Timeout <= 0:
		return fmt.Errorf("--timeout %v: want more than nothing", v.client.Timeout)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	stderr := cmd.ErrOrStderr()
	v.client.Log = func(line string) { fmt.Fprintln(stderr, line) }
	client, err := vendoring.NewClient(v.client)
	if err != nil {
		return fmt.Errorf("--ca-file: %w", err)
	}
	roots, err := v.open(stderr, client, files)
	for _, r := range roots {
		defer r.copies.Close()
	}
	if err != nil {
		return err
	}

	out := stderr
	if v.check {
		out = cmd.OutOrStdout() // what it finds is its result
	}
	bad := false
	for _, r := range roots {
		ok, err := v.evaluate(ctx, out, stderr, r)
		switch {
		case ctx.Err() != nil:
			return &exitError{exitCancelled, errors.New("interrupted: nothing was written")}
		case err != nil:
			return err
		}
		bad = bad || !ok
	}
	for _, url := range v.update {
		if url != everyURL && !slices.ContainsFunc(roots, func(r *vendorRoot) bool { return r.copies.Named(url) }) {
			fmt.Fprintf(stderr, "kfs: --update=%s: no script names this URL\n", url)
			bad = true
		}
	}
	known := !bad
	if v.prune && !known {
		fmt.Fprintln(stderr, "kfs: nothing is pruned: not all that the scripts name is known")
	}
	for _, r := range roots {
		ok := v.finish(ctx, out, r, known)
		bad = bad || !ok
	}
	if bad {
		return &exitError{status: exitUsage}
	}
	return nil
}

// open opens the roots of files, each once.
func (v *vendorRun) open(stderr io.Writer, client *vendoring.Client, files []string) ([]*vendorRoot, error) {
	cfg := vendoring.Config{
		Update: func(url string) bool {
			return slices.ContainsFunc(v.update, func(u string) bool { return u == everyURL || component.FixURL(u) == url })
		},
		Log: v.client.Log,
	}
	if !v.check {
		cfg.Get = client.Get
	}
	var roots []*vendorRoot
	for _, file := range files {
		dir := filepath.Clean(v.script.rootOf(file))
		if i := slices.IndexFunc(roots, func(r *vendorRoot) bool { return r.dir == dir }); i >= 0 {
			roots[i].files = append(roots[i].files, file)
			continue
		}
		cfg.Command = "kfs vendor " + file
		if v.script.root != "" {
			cfg.Command += " --root " + v.script.root
		}
		copies, err := vendoring.Open(dir, cfg)
		if err != nil {
			return roots, err
		}
		roots = append(roots, &vendorRoot{dir, []string{file}, copies})
	}
	return roots, nil
}

// evaluate evaluates the scripts of a root, writes what is wrong in them to
// out, and reports whether nothing is.
func (v *vendorRun) evaluate(ctx context.Context, out, stderr io.Writer, r *vendorRoot) (bool, error) {
	ok := true
	cfg := interp.Config{
		Fetch: func(url string) ([]byte, error) { return r.copies.Fetch(ctx, url) },
		// The wait for servers counts, and has limits of its own.
		Limits: interp.Limits{Time: time.Hour},
	}
	for _, file := range r.files {
		found, err := v.script.findings(ctx, stderr, file, cfg, nil)
		if ctx.Err() != nil || err != nil {
			return false, err
		}
		writeFindings(out, found)
		ok = ok && found == nil
	}
	for _, err := range r.copies.Unasked() {
		report(out, err)
		ok = false
	}
	return ok, nil
}

// finish writes what was fetched under a root; with --check it looks whether
// there are pins to be pruned. What is wrong goes to out. Nothing is pruned if
// not all that the scripts name is known.
func (v *vendorRun) finish(ctx context.Context, out io.Writer, r *vendorRoot, known bool) bool {
	if !v.check {
		errs := r.copies.Save(ctx, v.prune && known)
		for _, err := range errs {
			report(out, err)
		}
		return errs == nil
	}
	if !v.prune || !known {
		return true
	}
	unused := r.copies.Unused()
	for _, p := range unused {
		fmt.Fprintf(out, "kfs: no script names %s, which %s pins\n", p.URL, filepath.Join(r.dir, component.LockFile))
	}
	return len(unused) == 0
}
