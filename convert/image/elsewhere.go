package image

import (
	"context"
	"errors"
	"sync"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/strict"
)

// elsewhere are images of a manifest list that the store has not: they are fetched from where the list says they are. The policy
// is asked about each.
type elsewhere struct {
	c     *Converter
	where map[digest.Digest]string // manifest -> reference

	mu    sync.Mutex
	open  map[string]Source
	blobs map[digest.Digest]Source // of the manifests that were read
}

// elsewhere finds out what of the list is elsewhere.
func (s *stored) elsewhere(c *Converter) *elsewhere {
	e := &elsewhere{c: c, where: map[digest.Digest]string{}, open: map[string]Source{}, blobs: map[digest.Digest]Source{}}
	for _, entry := range s.list.Entries {
		if entry.Elsewhere != "" {
			e.where[entry.Digest] = entry.Elsewhere
		}
	}
	return e
}

// manifest fetches the manifest of an image.
func (e *elsewhere) manifest(ctx context.Context, d digest.Digest, where string) ([]byte, error) {
	ref, err := Parse(where)
	if err == nil && NamesStore(ref) {
		err = kimg.Errorf(kimg.ErrInvalid, kimg.Quote(where), "the list does not say where its image is")
	}
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	src := e.open[where]
	if src == nil {
		if src, err = e.c.openSource(ctx, ref, ""); err != nil {
			return nil, kimg.Wrap(where, err)
		}
		e.open[where] = src
	}
	data, err := e.instance(ctx, src, ref, d)
	if err != nil {
		return nil, kimg.Wrap(where, err)
	}
	var m ispec.Manifest
	if strict.UnmarshalExact(data, &m) == nil { // whoever wants the image finds out what is wrong with it
		for _, b := range append(m.Layers, m.Config) {
			e.blobs[b.Digest] = src
		}
	}
	return data, nil
}

// signatures reads those of an image whose manifest was read.
func (e *elsewhere) signatures(ctx context.Context, d digest.Digest, where string) ([][]byte, error) {
	e.mu.Lock()
	src := e.open[where]
	e.mu.Unlock()
	from, ok := src.(signedSource)
	if !ok {
		return nil, nil
	}
	if data, err := src.Manifest(ctx); err == nil && digest.FromBytes(data) == d {
		d = ""
	}
	return from.Signatures(ctx, d)
}

// instance reads what the reference leads to, or one image of the index that it leads to.
func (e *elsewhere) instance(ctx context.Context, src Source, ref types.ImageReference, d digest.Digest) ([]byte, error) {
	data, err := src.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	if got, err := convert.ManifestDigest(data); err == nil && got == d {
		return data, nil
	}
	if data, err = src.ManifestByDigest(ctx, d); err != nil {
		return nil, err
	}
	return data, e.c.judge(ctx, ref, src, &d)
}

// has finds where a blob is that belongs to an image whose manifest was read; nil: not elsewhere.
func (e *elsewhere) has(d digest.Digest) Source {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.blobs[d]
}

// holds tells where an image is; empty: not elsewhere.
func (e *elsewhere) holds(manifest digest.Digest) string {
	if e == nil {
		return ""
	}
	return e.where[manifest]
}

func (e *elsewhere) close() (err error) {
	if e == nil {
		return nil
	}
	for _, src := range e.open {
		err = errors.Join(err, src.Close())
	}
	return err
}

// PutIndex writes an index, byte for byte, to where its images are already, or will be; they do not go along.
func (c *Converter) PutIndex(ctx context.Context, index []byte, dst types.ImageReference) (Result, error) {
	v, err := convert.ParseIndex(index)
	if err != nil {
		return Result{}, err
	}
	at, err := c.place(dst)
	if err == nil && (!at.index || (&job{Converter: c}).format(at, v.Format) != v.Format) {
		err = kimg.Errorf(kimg.ErrUnsupported, "", "does not hold an index of format %s without its images", v.Format)
	}
	if err != nil {
		return Result{}, kimg.Wrap(label(dst), err)
	}
	j := &job{Converter: c, src: dst, dst: dst, at: at}
	err = j.write(ctx, new(Result), func() ([]byte, string, error) { return index, v.MediaType, nil })
	d := digest.FromBytes(index)
	return Result{From: v.Format, To: v.Format, OldDigest: d, NewDigest: d}, err
}
