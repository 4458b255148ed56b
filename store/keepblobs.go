package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"

	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/internal/strict"
	"github.com/kimg/kimg/layerdiff/recipe"
)

// maxRecipe is how large a recipe may be; it holds the header of a gzip file.
const maxRecipe = 128 << 10

// keptKey is under which a layer keeps a blob it came as, in its big data: of letters that the library takes for a file name as
// they are.
func keptKey(d digest.Digest) string {
	return "kimg.blob." + d.Algorithm().String() + "." + d.Encoded()
}

// recipeKey is under which it keeps how the blob is made again.
func recipeKey(d digest.Digest) string {
	return "kimg.recipe." + d.Algorithm().String() + "." + d.Encoded()
}

// KeptBlob is a blob on its way to the layer that is unpacked from it. It is an io.Writer for its bytes, and measures them.
type KeptBlob struct {
	*streamio.Meter
	file   *os.File
	recipe []byte // nil: none was found
}

// SpoolBlob opens a place for a blob that [Tx.KeepBlob] will keep, a file without a name in the store. It goes with the Tx.
func (tx *Tx) SpoolBlob() (*KeptBlob, error) {
	f, err := tx.s.spoolFile()
	if err != nil {
		return nil, wrap("blob", err)
	}
	tx.keep(&stagedOutput{s: tx.s, tar: f})
	return &KeptBlob{Meter: streamio.NewMeter(f), file: f}, nil
}

// KeepBlob registers that a layer, which must be registered before, keeps the blob it was unpacked from, byte for byte, so that the
// image can leave the store as it came. Everything must have been written to b; class integrity unless it is d. A layer of
// an additional store keeps nothing; nor does an empty one below which there is none.
func (tx *Tx) KeepBlob(l *StagedLayer, b *KeptBlob, d digest.Digest) error {
	if err := b.is(d); err != nil {
		return err
	}
	if b.recipe != nil && !l.Empty { // an empty one lies in another layer
		tx.keepIn(l, recipeKey(d), func(context.Context) (io.Reader, error) { return bytes.NewReader(b.recipe), nil })
		return nil
	}
	tx.keepIn(l, keptKey(d), func(ctx context.Context) (io.Reader, error) {
		_, err := b.file.Seek(0, io.SeekStart)
		return streamio.WithContext(ctx, b.file), err
	})
	return nil
}

// FindRecipe looks for how the blob was made, when all of it is written, with jobs goroutines: its content is compressed until an encoder
// makes the blob. Of one that is found [Tx.KeepBlob] keeps only that; another release of kimg may not be able to make it.
func (b *KeptBlob) FindRecipe(ctx context.Context, jobs int) error {
	r, err := recipe.Find(ctx, b.file, b.Size(), jobs)
	if err == nil {
		b.recipe, err = strict.Marshal(r)
	}
	if kimg.ClassOf(err) == kimg.ErrNotFound {
		return nil
	}
	return err
}

func (b *KeptBlob) is(d digest.Digest) error {
	got := b.Digest()
	if a := d.Algorithm(); a != got.Algorithm() && d.Validate() == nil {
		_, err := b.file.Seek(0, io.SeekStart)
		if err == nil {
			got, err = a.FromReader(b.file)
		}
		if err != nil {
			return wrap("blob", err)
		}
	}
	if got != d {
		return kimg.Errorf(kimg.ErrIntegrity, kimg.Quote(d.String()), "blob-digest: the bytes have %s", got)
	}
	return nil
}

// keepIn registers a document of a layer. What stays of it when the change is taken back is true of a layer that was there before.
func (tx *Tx) keepIn(l *StagedLayer, key string, open func(context.Context) (io.Reader, error)) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.steps = append(tx.steps, step{what: "blob of layer " + l.ID, layer: true, do: func(ctx context.Context) error {
		if l.ID == "" {
			return nil
		}
		old, err := tx.s.st.Layer(l.ID)
		if err != nil || old.ReadOnly || slices.Contains(old.BigDataNames, key) {
			return err
		}
		r, err := open(ctx)
		if err != nil {
			return err
		}
		return tx.s.st.SetLayerBigData(l.ID, key, r)
	}})
}

// KeepsBlob tells whether a layer that the store had keeps a blob already, or how it is made, or cannot.
func (tx *Tx) KeepsBlob(l *StagedLayer, d digest.Digest) bool {
	old, err := tx.s.layerIfThere(l.ID)
	return err == nil && old != nil && (old.ReadOnly || slices.Contains(old.BigDataNames, keptKey(d)) || slices.Contains(old.BigDataNames, recipeKey(d)))
}

// Blob opens a blob that the image keeps, by its digest: its configuration, a document of a list, or a layer as it came, made
// again if need be; its
// digest is checked while it is read, and its size unless that is -1. Class notfound when nothing is kept under d. The caller closes it.
func (i *Image) Blob(ctx context.Context, d digest.Digest, size int64) (io.ReadCloser, error) {
	if d.Validate() == nil && i.keeps(d.String()) {
		data, err := i.document(ctx, d)
		if err == nil && size >= 0 && int64(len(data)) != size {
			err = kimg.Errorf(kimg.ErrIntegrity, d.String(), "size: %d bytes and not %d", len(data), size)
		}
		return io.NopCloser(bytes.NewReader(data)), err
	}
	layer, key, err := i.keptIn(ctx, d)
	if err == nil && layer == nil {
		err = kimg.Errorf(kimg.ErrNotFound, kimg.Quote(d.String()), "blob-missing: %s does not keep it", i.label())
	}
	if err != nil {
		return nil, err
	}
	r, err := i.s.st.LayerBigData(layer.ID, key)
	if err != nil {
		return nil, wrap("layer "+layer.ID, err)
	}
	if key == recipeKey(d) {
		if r, err = i.s.remade(ctx, layer, r); err != nil {
			return nil, err
		}
	}
	v, err := streamio.NewVerifier(streamio.WithContext(ctx, r), size, d)
	if err != nil {
		r.Close()
		return nil, err
	}
	return verified{v, r}, nil
}

// remade makes a blob again, by the recipe that doc holds. It closes doc.
func (s *Store) remade(ctx context.Context, l *storage.Layer, doc io.ReadCloser) (io.ReadCloser, error) {
	data, err := io.ReadAll(io.LimitReader(doc, maxRecipe+1))
	if err = errors.Join(err, doc.Close()); err == nil {
		err = strict.Size("", int64(len(data)), maxRecipe)
	}
	var r recipe.Recipe
	if err == nil {
		err = strict.UnmarshalExact(data, &r)
	}
	if err == nil { // what is wrong with the recipe is said before anything is read
		var z io.Closer
		if z, err = r.Writer(io.Discard, 1); err == nil {
			err = z.Close()
		}
	}
	if err != nil {
		return nil, kimg.Wrap("layer "+l.ID, err)
	}
	return streamio.Produce(ctx, func(ctx context.Context, w io.Writer) error {
		z, err := r.Writer(w, 0)
		if err != nil {
			return err
		}
		return errors.Join(s.exportLayer(ctx, l, z), z.Close())
	}), nil
}

// Keeps tells whether [Image.Blob] has a blob.
func (i *Image) Keeps(ctx context.Context, d digest.Digest) (bool, error) {
	if i.keeps(d.String()) {
		return true, nil
	}
	layer, _, err := i.keptIn(ctx, d)
	return layer != nil, err
}

// keptIn finds the layer of the image that keeps a blob, or else a recipe for it, and under which key; nil: none does.
func (i *Image) keptIn(ctx context.Context, d digest.Digest) (*storage.Layer, string, error) {
	if d.Validate() != nil {
		return nil, "", nil
	}
	chain, err := i.s.chain(ctx, i.TopLayer)
	if err != nil {
		return nil, "", err
	}
	for _, key := range []string{keptKey(d), recipeKey(d)} {
		for _, l := range chain {
			if slices.Contains(l.BigDataNames, key) {
				return l, key, nil
			}
		}
	}
	return nil, "", nil
}

// verified is a reader that is checked, and closes what is below.
type verified struct {
	io.Reader
	io.Closer
}
