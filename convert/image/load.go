package image

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"

	"github.com/containers/image/v5/docker/reference"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/archive"
	"github.com/kimg/kimg/store/transfer"
)

// LoadOptions say how images come in.
type LoadOptions struct {
	Strict bool // an image of the archive, or of an index, that cannot be read is a failure and not a warning
}

// Loaded is one image that came into the store, or an index.
type Loaded struct {
	Names     []string      // that it has now from the archive; none: the archive has no good one
	ID        string        // in the store
	Digest    digest.Digest // of the manifest or index in the archive
	IsIndex   bool
	Instances []LoadedInstance // of an index, in its order; of an image itself alone
}

// Familiar returns the names as people write them: docker.io/library/app:1 is app:1.
func (l Loaded) Familiar() []string {
	var all []string
	for _, name := range l.Names {
		if named, err := reference.ParseNormalizedNamed(name); err == nil {
			name = reference.FamiliarString(named)
		}
		all = append(all, name)
	}
	return all
}

// LoadedInstance is one manifest that was found.
type LoadedInstance struct {
	Digest   digest.Digest // of the manifest in the archive
	Platform string        // empty of what is no image
	ID       string        // of the image in the store; empty: there is none
	Data     bool          // it is kept as it is, and not unpacked: an attestation, or an image for another system
	Unpacked int           // layers that were unpacked
	Skipped  int           // layers that the store had
	Err      error         // why it is not there
}

// Load brings all images of an archive, of an image layout or of a dir: directory at path into the store. When it returns nil they are
// there with their names, and durable; otherwise the store is what it was. Every image must be accepted by the signature policy.
//
// Of an index all images come, or the one of Options.Platform; what is no image is kept as data. An image without a good name is
// there without one. What is in the store already is not unpacked.
func (c *Converter) Load(ctx context.Context, path string, o LoadOptions) ([]Loaded, error) {
	st, err := c.store()
	if err != nil {
		return nil, err
	}
	in, err := openPlace(ctx, path, archive.Options{TempDir: st.TempDir()})
	if err != nil {
		return nil, err
	}
	defer in.Close()
	all, err := c.load(ctx, st, in, o)
	return all, kimg.Wrap(path, err)
}

// LoadFrom is [Converter.Load] from a stream, which may be a file, a pipe or anything else, compressed or not. It is closed.
func (c *Converter) LoadFrom(ctx context.Context, r io.ReadCloser, o LoadOptions) ([]Loaded, error) {
	st, err := c.store()
	if err != nil {
		r.Close()
		return nil, err
	}
	options := archive.Options{TempDir: st.TempDir()}
	var a *archive.Archive
	if f, ok := r.(*os.File); ok {
		a, err = archive.SpoolFile(ctx, f, options)
	} else {
		a, err = archive.Spool(ctx, r, options)
		r.Close()
	}
	if err != nil {
		return nil, err
	}
	defer a.Close()
	in, err := archived(a, "")
	if err != nil {
		return nil, err
	}
	return c.load(ctx, st, in, o)
}

// load brings in what a place has.
func (c *Converter) load(ctx context.Context, st *store.Store, in *incoming, o LoadOptions) ([]Loaded, error) {
	if len(in.names) == 0 {
		return nil, kimg.Errorf(kimg.ErrInvalid, "", "not-an-image: there is no image")
	}
	l := &loader{Converter: c, in: in, o: o}
	for n, names := range in.names {
		one := &arriving{label: "@" + strconv.Itoa(n)}
		for _, name := range names {
			full, err := store.NormalizeName(name)
			if err != nil {
				c.o.Logger.WarnContext(ctx, "not a name for an image; it is left out", "name", kimg.Quote(name))
			} else if !slices.Contains(one.Names, full) {
				one.Names = append(one.Names, full)
			}
		}
		if len(one.Names) > 0 {
			one.label = one.Names[0]
		}
		if err := l.read(ctx, n, one); err != nil {
			if err = l.unreadable(ctx, kimg.Wrap(one.label, err)); err != nil {
				return nil, err
			}
			continue
		}
		l.all = append(l.all, one)
	}
	if len(l.all) == 0 {
		return nil, l.first
	}
	var done []Loaded
	err := transfer.Change(ctx, st, "load", func(ctx context.Context, tx *store.Tx) error {
		done = nil
		for _, one := range l.all {
			r, err := l.unpack(ctx, tx, one)
			if err != nil {
				return kimg.Wrap(one.label, err)
			}
			done = append(done, r)
		}
		return nil
	})
	return done, err
}

// loader is one call of Load.
type loader struct {
	*Converter
	in    *incoming
	o     LoadOptions
	all   []*arriving
	first error // why the first unreadable image is that
}

// arriving is an image, or an index, whose documents were read.
type arriving struct {
	Loaded
	label  string
	index  []byte            // nil: one image
	images []*transfer.Image // one for each of Instances; nil: no image
	data   map[digest.Digest][]byte
	signed map[digest.Digest][][]byte // signatures of manifests
	about  []byte                     // index of what is about the image

	records map[int]store.ImageRecord // of Instances, after they were unpacked
	done    map[int][]transfer.Done
}

// unreadable decides on an image that cannot be read: nil lets the others come.
func (l *loader) unreadable(ctx context.Context, err error) error {
	switch kimg.ClassOf(err) {
	case kimg.ErrNotFound, kimg.ErrIntegrity, kimg.ErrInvalid, kimg.ErrUnsupported, kimg.ErrLimit, kimg.ErrUnsafe:
	default:
		return err
	}
	if l.first == nil {
		l.first = err
	}
	if l.o.Strict {
		return err
	}
	l.Converter.o.Logger.WarnContext(ctx, "an image cannot be read; the others are loaded", "error", err)
	return nil
}

// read reads the documents of an image.
func (l *loader) read(ctx context.Context, n int, one *arriving) error {
	src, err := l.in.open(ctx, n)
	if err != nil {
		return err
	}
	manifest, err := src.Manifest(ctx)
	if err == nil && (l.Converter.o.Platform == nil || !isIndex(manifest)) {
		err = l.judge(ctx, l.in.ref, src, nil)
	}
	if err != nil {
		return err
	}
	one.Digest = digest.FromBytes(manifest)
	j := &job{Converter: l.Converter, src: l.in.ref, from: src}
	var chosen digest.Digest
	if isIndex(manifest) {
		if p := l.Converter.o.Platform; p == nil {
			return l.readIndex(ctx, j, manifest, one)
		} else if manifest, chosen, err = j.choose(ctx, manifest, p); err != nil {
			return err
		}
	}
	img, err := transfer.Read(ctx, src, manifest)
	if err == nil && img.Format != convert.DockerV2S1 {
		err = l.signatures(ctx, j, one, img.Digest, chosen)
	}
	if err == nil {
		one.images = []*transfer.Image{img}
		one.Instances = []LoadedInstance{{Digest: img.Digest, Platform: platformText(&img.Platform)}}
	}
	return err
}

// signatures reads those of a manifest; instance is empty for the one that the image is.
func (l *loader) signatures(ctx context.Context, j *job, one *arriving, manifest, instance digest.Digest) error {
	from, ok := j.from.(signedSource)
	if !ok || j.o.RemoveSignatures {
		return nil
	}
	files, err := from.Signatures(ctx, instance)
	if len(files) > 0 {
		if one.signed == nil {
			one.signed = map[digest.Digest][][]byte{}
		}
		one.signed[manifest] = files
	}
	return err
}

// unpack brings an image into the change.
func (l *loader) unpack(ctx context.Context, tx *store.Tx, one *arriving) (Loaded, error) {
	r := one.Loaded
	r.Instances = slices.Clone(one.Instances)
	ids := map[digest.Digest]string{}
	one.records, one.done = map[int]store.ImageRecord{}, map[int][]transfer.Done{}
	for i, img := range one.images {
		if img == nil {
			continue
		}
		again := *img // a second attempt begins anew
		rec, layers, err := again.Unpack(ctx, tx, l.transfer(l.tells(one.labelOf(i))))
		if err != nil {
			return r, err
		}
		if files := one.signed[img.Digest]; files != nil {
			rec.Signatures = map[digest.Digest][][]byte{img.Digest: files}
		}
		at := &r.Instances[i]
		at.ID, one.records[i], one.done[i] = rec.ID(), rec, layers
		for _, d := range layers {
			if d.Skipped {
				at.Skipped++
			} else {
				at.Unpacked++
			}
		}
		if one.index == nil {
			rec.Names, r.ID = one.Names, at.ID
		}
		ids[img.Digest] = at.ID
		tx.PutImage(rec)
	}
	if one.index == nil {
		return r, nil
	}
	r.ID = digest.FromBytes(one.index).Encoded()
	return r, tx.PutList(ctx, store.ListRecord{Names: one.Names, Index: one.index, Instances: ids, Data: one.data, Signatures: others(one.signed, ids), About: one.about})
}

// labelOf is what an image is called, one of several perhaps.
func (one *arriving) labelOf(i int) string {
	if one.index == nil {
		return one.label
	}
	return fmt.Sprintf("%s (%s)", one.label, one.Instances[i].Platform)
}

// others are the signatures of what is no image.
func others(signed map[digest.Digest][][]byte, images map[digest.Digest]string) map[digest.Digest][][]byte {
	rest := maps.Clone(signed)
	maps.DeleteFunc(rest, func(d digest.Digest, _ [][]byte) bool { return images[d] != "" })
	return rest
}

// host tells whether an image can be unpacked and run here: layers of other systems mean something else.
func host(p *ispec.Platform) bool { return p == nil || p.OS == "" || p.OS == runtime.GOOS }
