package layout

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/internal/staging"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/internal/strict"
)

// Destination is an image being written into a directory. Has, Put and PutManifest are safe for concurrent use.
type Destination struct {
	path string
	form form
	root *os.File // holds the lock while names are given
	area *staging.Area
	made []string // directories that were not there before
	o    Options
	step func() error // see staging.Publish

	mu        sync.Mutex
	reused    map[digest.Digest]int64 // good blobs that were there before
	instances map[digest.Digest]bool  // blobs that are manifests of an index
	beside    map[string][]byte       // files with signatures
	finished  bool

	published *staging.Publisher // of a Commit that succeeded; see TakeBack
	document  []byte             // that names the image, as Commit wrote it
}

// form is what a dir: image and an OCI layout do differently.
type form interface {
	// check looks at a directory with something in it that is no staging directory.
	check(root *os.File) error
	// blob is where a blob goes, slash-separated.
	blob(d digest.Digest, instance bool) string
	// document is the file that names the image.
	document() string
	// publish gives everything its name.
	publish(ctx context.Context, d *Destination, p *staging.Publisher, manifest []byte, mediaType string) error
}

func create(ctx context.Context, path string, f form, o Options) (d *Destination, err error) {
	for range 100 {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		// Another one who gives up takes the directories away that he made.
		if d, err = begin(path, f, o); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return d, err
}

func begin(path string, f form, o Options) (_ *Destination, err error) {
	d := &Destination{path: path, form: f, o: o, reused: map[digest.Digest]int64{}, instances: map[digest.Digest]bool{}, beside: map[string][]byte{}}
	if d.made, err = staging.MakeDirs(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			staging.RemoveDirs(d.made)
		}
	}()
	if d.root, err = openRoot(path); err != nil {
		return nil, err
	}
	names, err := os.ReadDir(path)
	if err == nil && slices.ContainsFunc(names, func(e fs.DirEntry) bool { return !staging.Is(e.Name()) }) {
		err = f.check(d.root)
	}
	if err == nil {
		d.area, err = staging.Open(path, !o.NoSync)
	}
	if err != nil {
		d.root.Close()
		return nil, err
	}
	return d, nil
}

// Has reports whether a blob with this digest and size is staged, or lies at the destination and is good: one that this
// destination has not seen before is read and verified.
func (d *Destination) Has(ctx context.Context, want digest.Digest, size int64) (bool, error) {
	have, ok := d.area.Size(want)
	if !ok {
		d.mu.Lock()
		have, ok = d.reused[want]
		d.mu.Unlock()
	}
	if ok {
		return have == size, nil
	}
	if err := strict.Digest(want.String()); err != nil { // it is going to be part of a path
		return false, err
	}
	good, err := d.verify(ctx, want, size)
	if err != nil {
		return false, kimg.Wrap(d.path, err)
	}
	if good {
		d.mu.Lock()
		d.reused[want] = size
		d.mu.Unlock()
	}
	return good, nil
}

// verify reads the blob that lies at the destination. What is absent, or is not what it should be, is not good.
func (d *Destination) verify(ctx context.Context, want digest.Digest, size int64) (bool, error) {
	f, err := safeopen.OpenIn(d.root, d.form.blob(want, false))
	if err != nil {
		return false, unless(err, kimg.ErrNotFound)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() != size {
		return false, err
	}
	if d.o.Verified.knows(want, info) {
		return true, nil
	}
	v, err := streamio.NewVerifier(streamio.WithContext(ctx, f), size, want)
	if err != nil {
		return false, err
	}
	if _, err = streamio.Copy(io.Discard, v); err == nil {
		d.o.Verified.learn(want, info)
	}
	return err == nil, unless(err, kimg.ErrIntegrity)
}

// unless drops an error of a class.
func unless(err error, class kimg.Class) error {
	if kimg.ClassOf(err) == class {
		return nil
	}
	return err
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

// PutManifest stages the manifest of one instance of the index that will be committed.
func (d *Destination) PutManifest(ctx context.Context, want digest.Digest, manifest []byte) error {
	_, _, err := d.Put(ctx, want, int64(len(manifest)), bytes.NewReader(manifest))
	if err == nil {
		d.mu.Lock()
		d.instances[want] = true
		d.mu.Unlock()
	}
	return err
}

// Commit makes the image appear: everything staged is synced and given its name, the document that names the image
// last. After an error everything is as it was before. It can be called once; Close is still needed.
func (d *Destination) Commit(ctx context.Context, manifest []byte, mediaType string) error {
	return kimg.Wrap(d.path, d.commit(ctx, manifest, mediaType))
}

func (d *Destination) commit(ctx context.Context, manifest []byte, mediaType string) error {
	if d.finished {
		return kimg.Errorf(kimg.ErrInternal, "", "committed or closed before")
	}
	if err := d.area.Sync(); err != nil {
		return err
	}
	if err := d.acquire(ctx); err != nil {
		return err
	}
	defer unix.Flock(int(d.root.Fd()), unix.LOCK_UN)
	p := d.area.Publish(d.step)
	err := d.checkReused()
	if err == nil {
		err = d.form.publish(ctx, d, p, manifest, mediaType)
	}
	if err == nil {
		err = p.SyncDirs(parents(d.made)...)
	}
	if err == nil {
		d.document, err = readBounded(d.root, d.form.document())
	}
	if err != nil {
		return p.TakeBack(ctx, err)
	}
	d.finished, d.published = true, p
	for blob := range d.area.Blobs() {
		if info, err := os.Lstat(filepath.Join(d.path, d.form.blob(blob, false))); err == nil && !d.instances[blob] {
			d.o.Verified.learn(blob, info)
		}
	}
	return nil
}

// Blob opens a blob that is staged, or lies at the destination, and tells its size. The bytes are not verified. The caller closes
// the reader.
func (d *Destination) Blob(ctx context.Context, want digest.Digest) (io.ReadCloser, int64, error) {
	if err := errors.Join(strict.Digest(want.String()), context.Cause(ctx)); err != nil {
		return nil, 0, err
	}
	if _, staged := d.area.Size(want); staged {
		return d.area.Open(want)
	}
	return openBlob(d.root, want, d.form.blob(want, false))
}

// checkReused makes sure that nobody took a blob away since it was found good, and that it is on disk: nobody knows
// whether who wrote it cared.
func (d *Destination) checkReused() error {
	for blob, size := range d.reused {
		path := filepath.Join(d.path, d.form.blob(blob, false))
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() || info.Size() != size {
			return kimg.Errorf(kimg.ErrBusy, blob.String(), "another process took the blob away")
		}
		if err := d.sync(path); err != nil {
			return err
		}
	}
	return nil
}

func (d *Destination) sync(path string) error {
	if d.o.NoSync {
		return nil
	}
	return staging.SyncFile(path)
}

// placeBlobs gives every staged blob its name, in the order of the names. A good blob of that name stays; any other file
// makes room.
func (d *Destination) placeBlobs(ctx context.Context, p *staging.Publisher) error {
	staged := d.area.Blobs()
	for _, blob := range slices.Sorted(maps.Keys(staged)) {
		name := d.form.blob(blob, d.instances[blob])
		if !d.instances[blob] {
			if good, err := d.verify(ctx, blob, staged[blob]); err != nil {
				return err
			} else if good {
				if err := d.sync(filepath.Join(d.path, name)); err != nil {
					return err
				}
				continue
			}
		}
		if err := p.Place(d.area.Path(blob), filepath.Join(d.path, name)); err != nil {
			return err
		}
	}
	return nil
}

// parents returns the directories that hold the names of others.
func parents(dirs []string) (all []string) {
	for _, dir := range dirs {
		all = append(all, filepath.Dir(dir))
	}
	return all
}

// Close ends the writing. Without a Commit that succeeded, and was not taken back, it removes everything that was made.
func (d *Destination) Close() error {
	if d.area == nil {
		return nil
	}
	err := errors.Join(d.area.Close(), d.root.Close())
	staging.RemoveDirs(d.made)
	d.area, d.finished = nil, true
	return kimg.Wrap(d.path, err)
}
