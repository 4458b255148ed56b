package store

import (
	"bytes"
	"context"
	"io"
	"os"
	"slices"

	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/streamio"
)

// keptPrefix begins the keys under which a layer keeps blobs it came as, in its big data: of
// letters that the library takes for a file name as they are.
const keptPrefix = "kimg.blob."

func keptKey(d digest.Digest) string {
	return keptPrefix + d.Algorithm().String() + "." + d.Encoded()
}

// KeptBlob is a blob on its way to the layer that is unpacked from it. It is an io.Writer for its bytes, and measures them.
type KeptBlob struct {
	*streamio.Meter
	file *os.File
}

// SpoolBlob opens a place for a blob that [Tx.KeepBlob] will keep, a file without a name in the store. It goes with the Tx.
func (tx *Tx) SpoolBlob() (*KeptBlob, error) {
	f, err := tx.s.spoolFile()
	if err != nil {
		return nil, wrap("blob", err)
	}
	tx.keep(&stagedOutput{s: tx.s, tar: f})
	return &KeptBlob{streamio.NewMeter(f), f}, nil
}

// KeepBlob registers that a layer, which must be registered before, keeps the blob it was unpacked from, byte for byte, so that the
// image can leave the store as it came. Everything must have been written to b; class integrity unless it is d. A layer of
// an additional store keeps nothing; nor does an empty one below which there is none.
func (tx *Tx) KeepBlob(l *StagedLayer, b *KeptBlob, d digest.Digest) error {
	if got := b.Digest(); got != d {
		return kimg.Errorf(kimg.ErrIntegrity, kimg.Quote(d.String()), "blob-digest: the bytes have %s", got)
	}
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.steps = append(tx.steps, step{what: "blob " + d.String(), layer: true, do: func(ctx context.Context) error {
		if l.ID == "" {
			return nil
		}
		old, err := tx.s.st.Layer(l.ID)
		if err != nil || old.ReadOnly || slices.Contains(old.BigDataNames, keptKey(d)) {
			return err
		}
		if _, err := b.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		// What stays when the change is taken back is a true copy of what it says, of a layer that was there before.
		return tx.s.st.SetLayerBigData(l.ID, keptKey(d), streamio.WithContext(ctx, b.file))
	}})
	return nil
}

// KeepsBlob tells whether a layer that the store had keeps a blob already, or cannot.
func (tx *Tx) KeepsBlob(l *StagedLayer, d digest.Digest) bool {
	old, err := tx.s.layerIfThere(l.ID)
	return err == nil && old != nil && (old.ReadOnly || slices.Contains(old.BigDataNames, keptKey(d)))
}

// Blob opens a blob that the image keeps, by its digest: its configuration, a document of a list, or a layer as it came; its
// digest is checked while it is read, and its size unless that is -1. Class notfound when nothing is kept under d. The caller closes it.
func (i *Image) Blob(ctx context.Context, d digest.Digest, size int64) (io.ReadCloser, error) {
	if d.Validate() == nil && i.keeps(d.String()) {
		data, err := i.document(ctx, d)
		if err == nil && size >= 0 && int64(len(data)) != size {
			err = kimg.Errorf(kimg.ErrIntegrity, d.String(), "size: %d bytes and not %d", len(data), size)
		}
		return io.NopCloser(bytes.NewReader(data)), err
	}
	layer, err := i.keptIn(ctx, d)
	if err == nil && layer == "" {
		err = kimg.Errorf(kimg.ErrNotFound, kimg.Quote(d.String()), "blob-missing: %s does not keep it", i.label())
	}
	if err != nil {
		return nil, err
	}
	r, err := i.s.st.LayerBigData(layer, keptKey(d))
	if err != nil {
		return nil, wrap("layer "+layer, err)
	}
	v, err := streamio.NewVerifier(streamio.WithContext(ctx, r), size, d)
	if err != nil {
		r.Close()
		return nil, err
	}
	return verified{v, r}, nil
}

// Keeps tells whether [Image.Blob] has a blob.
func (i *Image) Keeps(ctx context.Context, d digest.Digest) (bool, error) {
	if i.keeps(d.String()) {
		return true, nil
	}
	layer, err := i.keptIn(ctx, d)
	return layer != "", err
}

// keptIn finds the layer of the image that keeps a blob; "": none does.
func (i *Image) keptIn(ctx context.Context, d digest.Digest) (string, error) {
	if d.Validate() != nil {
		return "", nil
	}
	chain, err := i.s.chain(ctx, i.TopLayer)
	if err != nil {
		return "", err
	}
	n := slices.IndexFunc(chain, func(l *storage.Layer) bool { return slices.Contains(l.BigDataNames, keptKey(d)) })
	if n < 0 {
		return "", nil
	}
	return chain[n].ID, nil
}

// verified is a reader that is checked, and closes what is below.
type verified struct {
	io.Reader
	io.Closer
}
