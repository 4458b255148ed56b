package image

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/archive"
)

// SaveOptions say what is written.
type SaveOptions struct {
	Form             archive.Form
	NonDistributable bool // layers that may not be distributed are written as well, where the store has them
	PreserveDigests  bool // an image or index that would get another digest is class unsupported, before anything is written
}

// Saved is one image that was written, or an index.
type Saved struct {
	Result
	Names   []string        // under which it is in the archive; none: only by its digest
	ID      string          // in the store
	Partial bool            // of an index of the store, not everything
	Missing []digest.Digest // what the store has not of it
}

// leaseTime is how long images stay, whatever others do, while they are written.
const leaseTime = 24 * time.Hour

// Save writes images of the store to w, as one archive: of a list as many platforms as the store has whole, or the one of
// Options.Platform. Every name is resolved, and every document written, before the first byte is. Equal images give equal bytes, on every
// machine. The images are held by leases meanwhile. When it fails, what was written is of no use.
//
// Layers leave as the blobs the store keeps, else uncompressed, as they were packed. An image that says what is not in the store becomes one
// that says what is.
func (c *Converter) Save(ctx context.Context, refs []string, w io.Writer, o SaveOptions) (all []Saved, err error) {
	st, err := c.store()
	if err != nil {
		return nil, err
	}
	var held []*store.Lease
	defer func() {
		for _, l := range held {
			if rerr := l.Release(ctx); err == nil {
				err = rerr
			}
		}
	}()
	images, err := saving(ctx, st, refs)
	if err != nil {
		return nil, err
	}
	for _, img := range images {
		leases, err := hold(ctx, st, img.ID)
		held = append(held, leases...)
		if err != nil {
			return nil, kimg.Wrap(img.ref, err)
		}
	}
	b := &bundle{Bundle: archive.Bundle{Blobs: map[digest.Digest]archive.Blob{}}, c: c, o: o}
	for _, img := range images {
		s, err := b.image(ctx, img)
		if err != nil {
			return nil, kimg.Wrap(img.ref, err)
		}
		c.o.Logger.DebugContext(ctx, "saving", "image", img.ID, "names", img.names, "digest", s.NewDigest, "platforms", len(s.Images))
		all = append(all, s)
	}
	return all, b.Write(ctx, w, o.Form)
}

// toSave is an image of the store on its way out.
type toSave struct {
	*store.Image
	ref   string // as the caller wrote it first
	names []string
}

// saving finds every image, each once.
func saving(ctx context.Context, st *store.Store, refs []string) ([]*toSave, error) {
	var all []*toSave
	for _, ref := range refs {
		img, name, err := st.Named(ctx, ref)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(all, func(s *toSave) bool { return s.ID == img.ID })
		if i < 0 {
			i, all = len(all), append(all, &toSave{Image: img, ref: ref})
		}
		if name, err := store.NormalizeName(name); err == nil && !slices.Contains(all[i].names, name) {
			all[i].names = append(all[i].names, name)
		}
	}
	return all, nil
}

// hold takes leases on an image, and on those of a list. What it returns is to be released also after an error.
func hold(ctx context.Context, st *store.Store, id string) (held []*store.Lease, err error) {
	ids := []string{id}
	for i := 0; i < len(ids); i++ {
		l, err := st.Lease(ctx, store.LeaseOptions{Image: ids[i], Owner: "kimg", Purpose: "save", TTL: leaseTime})
		if err != nil {
			return held, err
		}
		held = append(held, l)
		if i > 0 {
			continue
		}
		img, err := st.Record(ctx, id)
		if err != nil || !img.IsList() {
			return held, err
		}
		list, err := img.List(ctx)
		if err != nil {
			return held, err
		}
		for _, e := range list.Entries {
			if e.Image != nil && !slices.Contains(ids, e.Image.ID) {
				ids = append(ids, e.Image.ID)
			}
		}
	}
	return held, nil
}
