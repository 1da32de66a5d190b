package launch

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"time"
)

// This file is the work of kfs-io.

// atOnce is how many files are fetched or uploaded at the same time.
const atOnce = 8

// ioSpec reads the spec from the environment.
func (c Config) ioSpec() (*IOSpec, error) {
	text := c.Getenv(EnvIOSpec)
	if file := c.Getenv(EnvIOSpecFile); file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", EnvIOSpecFile, err)
		}
		text = string(data)
	}
	return DecodeIOSpec(text)
}

// Prepare puts kfs-launch and the files that the step takes into the shared
// folder. It is the postStart hook of kfs-io, which the kubelet repeats for ever
// if it fails: so what goes wrong with the files is left to kfs-launch to tell.
// It does nothing if it has ended before, as it will have if kfs-io is started
// again.
func Prepare(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	root, err := os.OpenRoot(cfg.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if exists(root, startedFile) || exists(root, fetchedFile) {
		return nil
	}
	program, err := os.Open(cfg.Launcher)
	if err != nil {
		return err
	}
	defer program.Close()
	if err := makeDir(root, "bin"); err != nil {
		return err
	}
	if err := create(root, "bin/kfs-launch", 0o555, func(w io.Writer) error {
		_, err := io.Copy(w, program)
		return err
	}); err != nil {
		return err
	}
	return writeJSON(root, fetchedFile, wordOf(cfg.fetch(ctx, root)))
}

// fetch fetches the files. It opens the store even if it holds none of them: a
// store that cannot be had is better known before the step has run for hours.
func (c Config) fetch(ctx context.Context, root *os.Root) error {
	spec, err := c.ioSpec()
	if err != nil {
		return err
	}
	store, err := c.open(ctx, spec)
	if err != nil {
		return err
	}
	if err := makeDir(root, "in"); err != nil {
		return err
	}
	return each(len(spec.Inputs), func(i int) error {
		in := spec.Inputs[i]
		if in.From == "" {
			return nil
		}
		place, err := ParsePlace(in.From)
		if err == nil {
			err = c.again(ctx, func() error { return fetch(ctx, root, inFile(i), place, store) })
		}
		if err != nil {
			return fmt.Errorf("file %q: %w", in.Name, err)
		}
		return nil
	})
}

// fetch fetches one file.
func fetch(ctx context.Context, root *os.Root, name string, place Place, store Store) error {
	var from io.ReadCloser
	var err error
	switch {
	case place.Path != "":
		from, err = os.Open(place.Path)
	case store == nil:
		err = fmt.Errorf("%s is in an artifact store, and the run has none: name it with --artifacts%w", place.Key, errFinal)
	default:
		from, err = store.Get(ctx, place.Key)
	}
	if err != nil {
		return err
	}
	defer from.Close()
	where := cmp.Or(place.Path, place.Key)
	return create(root, name, 0o644, func(w io.Writer) error {
		s := &sink{to: w, hash: sha256.New(), max: max(place.Size, 1)}
		switch _, err := io.Copy(s, from); {
		case err != nil && !errors.Is(err, errTooLarge):
			return fmt.Errorf("%s: %w", where, err)
		case s.n < place.Size:
			return fmt.Errorf("%s ends after %d of %d bytes", where, s.n, place.Size)
		case s.n > place.Size || !bytes.Equal(s.hash.Sum(nil), place.SHA256):
			return fmt.Errorf("%s is not the file that was kept there: its size or checksum is another one%w", where, errFinal)
		}
		return nil
	})
}

// errFinal says nothing, and that another try would be in vain.
var errFinal = finalError{}

type finalError struct{}

// Error says nothing: the error that wraps it does.
func (finalError) Error() string { return "" }

// Serve brings out what the step leaves, when kfs-launch says so in the
// manifest, and then waits for the end of ctx. If that comes first, it returns
// at once, unless there is a manifest: then it does as that says before.
func Serve(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	root, err := os.OpenRoot(cfg.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for start := time.Now(); !exists(root, manifestFile); {
		if ctx.Err() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause(start)):
		}
	}
	stop := beat(root)
	defer stop()
	// If this process is not the first one that does it, it does it again: the
	// log of the one before may be gone with its container.
	var ack word
	acked := readJSON(root, ackFile, &ack) == nil
	if acked && ack.Error != "" {
		<-ctx.Done()
		return nil
	}
	err = cfg.bringOut(context.WithoutCancel(ctx), root, acked)
	if !acked {
		if err := writeJSON(root, ackFile, wordOf(err)); err != nil {
			return err
		}
	}
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "kfs-io: %v\n", err)
	}
	<-ctx.Done()
	return nil
}

// bringOut does what the manifest says.
func (c Config) bringOut(ctx context.Context, root *os.Root, uploaded bool) error {
	var m manifest
	if err := readJSON(root, manifestFile, &m); err != nil {
		return err
	}
	if len(m.Uploads) > 0 && !uploaded {
		spec, err := c.ioSpec()
		if err != nil {
			return err
		}
		store, err := c.open(ctx, spec)
		if err != nil {
			return err
		}
		if store == nil {
			return errors.New("the step has files to keep, and kfs-io no store to keep them in")
		}
		err = each(len(m.Uploads), func(i int) error {
			if err := c.put(ctx, root, store, spec.Prefix, m.Uploads[i]); err != nil {
				return fmt.Errorf("output %q: %w", m.Uploads[i].Name, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if !m.Print {
		return nil
	}
	rest, err := read(root, restFile, 2*MaxTotal)
	if err != nil {
		return fmt.Errorf("%s %w", restFile, err)
	}
	return printRest(c.Log, rest)
}

// put uploads one file.
func (c Config) put(ctx context.Context, root *os.Root, store Store, prefix string, u upload) error {
	f, err := openFile(root, outFile(u.N))
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != u.Size {
		return errors.New("was changed before it was uploaded")
	}
	return c.again(ctx, func() error { return store.Put(ctx, Key(prefix, u.Name), f, u.Size) })
}

// open opens the store, or returns nil if the step needs none.
func (c Config) open(ctx context.Context, spec *IOSpec) (store Store, err error) {
	if spec.Store == "" {
		return nil, nil
	}
	err = c.again(ctx, func() error {
		store, err = c.Open(ctx, spec.Store)
		return err
	})
	return store, err
}

// again calls f until it succeeds, or fails for good, or c.Patience is over.
func (c Config) again(ctx context.Context, f func() error) error {
	start := time.Now()
	for wait := c.Patience / 300; ; wait = min(2*wait, c.Patience/10) {
		err := f()
		final := errors.Is(err, errFinal) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrInvalid)
		if err == nil || final || time.Since(start)+wait > c.Patience {
			return err
		}
		fmt.Fprintf(os.Stderr, "kfs-io: %v; again in %v\n", err, wait)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// each calls f for 0 to n-1, several at once, and returns the first error by
// number.
func each(n int, f func(i int) error) error {
	errs := make([]error, n)
	slots := make(chan struct{}, atOnce)
	var wait sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wait.Go(func() {
			errs[i] = f(i)
			<-slots
		})
	}
	wait.Wait()
	return cmp.Or(errs...)
}

// beat shows life until the function that it returns is called.
func beat(root *os.Root) (stop func()) {
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			now := strconv.FormatInt(time.Now().UnixNano(), 10)
			create(root, beatFile, 0o644, func(w io.Writer) error {
				_, err := io.WriteString(w, now)
				return err
			})
			select {
			case <-done:
				return
			case <-time.After(time.Second):
			}
		}
	})
	return sync.OnceFunc(func() {
		close(done)
		wait.Wait()
	})
}
