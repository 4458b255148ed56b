package archive

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/internal/staging"
	"github.com/kimg/kimg/internal/strict"
)

// Destination is an archive being written. Has, Put and PutManifest are safe for concurrent use.
type Destination struct {
	path string
	area *staging.Area
	form form
	o    Options
	step func() error // see staging.Publish
	done bool

	published *staging.Publisher // of a Commit that succeeded; see TakeBack
	info      os.FileInfo        // of the archive it made
}

// form writes the members of a kind of archive.
type form interface {
	write(w *tarWriter, area *staging.Area, manifest []byte, mediaType string) error
}

func create(ctx context.Context, path string, f form, o Options) (*Destination, error) {
	err := context.Cause(ctx)
	if err == nil {
		err = checkAbsent(path)
	}
	if err != nil {
		return nil, err
	}
	// Not durable: the staged blobs are copied into the archive, which is synced.
	area, err := staging.Open(filepath.Dir(path), false)
	if err != nil {
		return nil, err
	}
	return &Destination{path: path, area: area, form: f, o: o}, nil
}

// checkAbsent allows nothing at a path but an empty regular file, as mktemp makes one.
func checkAbsent(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Size() > 0:
		return kimg.Errorf(kimg.ErrExists, "", "something is there already")
	}
	return nil
}

// Has reports whether a blob with this digest and size is staged already.
func (d *Destination) Has(ctx context.Context, want digest.Digest, size int64) (bool, error) {
	have, ok := d.area.Size(want)
	return ok && have == size, errors.Join(strict.Digest(want.String()), context.Cause(ctx))
}

// File makes a file for a blob whose digest is known only when it is written; the caller closes it. What [Destination.Keep] is not
// called for goes with Close.
func (d *Destination) File() (*os.File, error) {
	f, err := d.area.File()
	return f, kimg.Wrap(d.path, err)
}

// Keep stages the blob in a file of [Destination.File]. The caller has computed the digest and size of what was written.
func (d *Destination) Keep(f *os.File, sum digest.Digest, size int64) error {
	return kimg.Wrap(d.path, d.area.Keep(f, sum, size))
}

// Put stages a blob. An empty digest and a negative size are not known yet; content that does not match a known one is
// class integrity. It returns what was staged; r is read to its end.
func (d *Destination) Put(ctx context.Context, want digest.Digest, size int64, r io.Reader) (digest.Digest, int64, error) {
	got, n, err := d.area.Put(ctx, want, size, r)
	return got, n, kimg.Wrap(d.path, err)
}

// Blob opens a blob that is staged, before Commit, and tells its size. The caller closes the reader.
func (d *Destination) Blob(ctx context.Context, want digest.Digest) (io.ReadCloser, int64, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, 0, err
	}
	return d.area.Open(want)
}

// Commit writes the archive and makes it appear. After an error there is none. It can be called once; Close is still
// needed.
func (d *Destination) Commit(ctx context.Context, manifest []byte, mediaType string) error {
	return kimg.Wrap(d.path, d.commit(ctx, manifest, mediaType))
}

func (d *Destination) commit(ctx context.Context, manifest []byte, mediaType string) error {
	if d.done {
		return kimg.Errorf(kimg.ErrInternal, "", "committed or closed before")
	}
	d.done = true
	if err := strict.Size("manifest", int64(len(manifest)), strict.MaxDocument); err != nil {
		return err
	}
	f, err := d.area.File()
	if err != nil {
		return err
	}
	w := &tarWriter{ctx: ctx, f: f}
	err = d.form.write(w, d.area, manifest, mediaType)
	if err == nil {
		err = w.end()
	}
	if err == nil && !d.o.NoSync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := errors.Join(context.Cause(ctx), checkAbsent(d.path)); err != nil {
		return err
	}
	p := d.area.Publish(d.step)
	err = p.Place(f.Name(), d.path)
	if err == nil && d.step != nil {
		err = d.step()
	}
	if err == nil && !d.o.NoSync {
		err = safeopen.SyncDir(filepath.Dir(d.path))
	}
	if err == nil {
		d.info, err = os.Lstat(d.path)
	}
	if err != nil {
		return p.TakeBack(ctx, err)
	}
	d.published = p
	return nil
}

// TakeBack undoes a Commit that succeeded, until Close: there is no archive. When somebody has put another file there
// since, that stays: class busy. Cancelling ctx has no effect. Without such a Commit it does nothing.
func (d *Destination) TakeBack(ctx context.Context) error {
	if d.published == nil {
		return nil
	}
	info, err := os.Lstat(d.path)
	if err == nil && !os.SameFile(info, d.info) {
		err = kimg.Errorf(kimg.ErrBusy, "", "another process has put a file there since: it stays")
	}
	if err == nil {
		p := d.published
		d.published = nil
		err = p.Undo(context.WithoutCancel(ctx))
	}
	return kimg.Wrap(d.path, err)
}

// Close ends the writing. Without a Commit that succeeded it leaves nothing.
func (d *Destination) Close() error {
	if d.area == nil {
		return nil
	}
	err := d.area.Close()
	d.area, d.done = nil, true
	return kimg.Wrap(d.path, err)
}
