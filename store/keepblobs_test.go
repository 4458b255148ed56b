package store_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// gzipped is a blob of a tar.
func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, 9)
	must(t, err)
	_, err = w.Write(data)
	must(t, errors.Join(err, w.Close()))
	return b.Bytes()
}

// keep stages one layer from a blob and lets it keep the blob; fail fails the change after everything is staged.
func (ts *testStore) keep(t *testing.T, tar, blob []byte, d digest.Digest, recipe bool, fail error) (id string, err error) {
	t.Helper()
	err = ts.Change(t.Context(), "keep", func(ctx context.Context, tx *store.Tx) error {
		spool, err := tx.SpoolBlob()
		must(t, err)
		_, err = spool.Write(blob)
		must(t, err)
		l, err := tx.StageLayer(ctx, "", store.TarSource(bytes.NewReader(tar)))
		must(t, err)
		id = l.ID
		if recipe {
			must(t, spool.FindRecipe(ctx, 1))
		}
		if err := tx.KeepBlob(l, spool, d); err != nil {
			return err
		}
		tx.Record("test", func(context.Context) error { return fail })
		return nil
	})
	return id, err
}

// TestKeepBlobs: a layer keeps the blobs it came as, byte for byte, and gives nothing else out.
func TestKeepBlobs(t *testing.T) {
	ctx := t.Context()
	ts := newStore(t)
	tar := makeTar(t, file{name: "f", content: "x"})
	blob := gzipped(t, tar)
	d := digest.FromBytes(blob)
	ts.addImage(t, "other", "")
	before := ts.inventory(t)
	if _, err := ts.keep(t, tar, blob, digest.FromString("other"), false, nil); kimg.ClassOf(err) != kimg.ErrIntegrity {
		t.Errorf("another blob: %v", err)
	}
	if _, err := ts.keep(t, tar, blob, d, false, errors.New("stop")); err == nil {
		t.Error("no failure")
	}
	if after := ts.inventory(t); after != before {
		t.Error(diff(before, after))
	}
	id, err := ts.keep(t, tar, blob, d, false, nil)
	must(t, err)
	again := append(bytes.Clone(blob), gzipped(t, nil)...) // the same layer in another form
	_, err = ts.keep(t, tar, again, digest.FromBytes(again), false, nil)
	must(t, err)
	other := digest.SHA512.FromBytes(blob) // as other tools may call it
	_, err = ts.keep(t, tar, blob, other, false, nil)
	must(t, err)
	_, err = ts.keep(t, tar, again, other, false, nil)
	if kimg.ClassOf(err) != kimg.ErrIntegrity {
		t.Errorf("another blob: %v", err)
	}
	img, err := ts.PutImage(ctx, record(t, "x", id, []string{"x"}, digest.FromBytes(tar)))
	must(t, err)
	for d, want := range map[digest.Digest][]byte{d: blob, digest.FromBytes(again): again, other: blob} {
		r, err := img.Blob(ctx, d, int64(len(want)))
		must(t, err)
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		must(t, r.Close())
	}
	for d, want := range map[digest.Digest]bool{d: true, digest.Digest("sha256:" + img.ID): true, digest.FromBytes(tar): false, "sha256:../x": false} {
		if kept, err := img.Keeps(ctx, d); err != nil || kept != want {
			t.Errorf("%s: %v, %v", d, kept, err)
		}
		if r, err := img.Blob(ctx, d, -1); want != (err == nil) || !want && kimg.ClassOf(err) != kimg.ErrNotFound {
			t.Errorf("%s: %v", d, err)
		} else if err == nil {
			must(t, r.Close())
		}
	}
	if problems, err := ts.Check(ctx); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	// P4: flipped, cut, extended.
	path := filepath.Join(ts.root, "overlay-layers", id, "kimg.blob.sha256."+d.Encoded())
	for name, bad := range map[string][]byte{"flip": append([]byte{blob[0] ^ 1}, blob[1:]...), "cut": blob[:len(blob)-1], "extend": append(bytes.Clone(blob), 0)} {
		must(t, os.WriteFile(path, bad, 0o600))
		r, err := img.Blob(ctx, d, int64(len(blob)))
		must(t, err)
		if _, err := io.Copy(io.Discard, r); kimg.ClassOf(err) != kimg.ErrIntegrity {
			t.Errorf("%s: %v", name, err)
		}
		must(t, r.Close())
	}
}

// TestKeepRecipes: of a blob that a known encoder made only the recipe is kept; another one is kept itself.
func TestKeepRecipes(t *testing.T) {
	ctx := t.Context()
	ts := newStore(t)
	tar := makeTar(t, file{name: "f", content: strings.Repeat("some text ", 10_000)})
	blob := gzipped(t, tar)
	d := digest.FromBytes(blob)
	foreign := append(bytes.Clone(blob), gzipped(t, nil)...)
	id, err := ts.keep(t, tar, foreign, digest.FromBytes(foreign), true, nil)
	must(t, err)
	if _, err := os.Stat(filepath.Join(ts.root, "overlay-layers", id, "kimg.blob.sha256."+digest.FromBytes(foreign).Encoded())); err != nil {
		t.Error(err)
	}
	id, err = ts.keep(t, tar, blob, d, true, nil)
	must(t, err)
	img, err := ts.PutImage(ctx, record(t, "x", id, []string{"x"}, digest.FromBytes(tar)))
	must(t, err)
	read := func() ([]byte, error) {
		r, err := img.Blob(ctx, d, int64(len(blob)))
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(r)
		return data, errors.Join(err, r.Close())
	}
	if got, err := read(); err != nil || !bytes.Equal(got, blob) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	path := filepath.Join(ts.root, "overlay-layers", id, "kimg.recipe.sha256."+d.Encoded())
	if info, err := os.Stat(path); err != nil || info.Size() > 100 {
		t.Errorf("%v, %v", info, err)
	}
	for text, want := range map[string]kimg.Class{
		`{"encoder":"go","level":1,"header":"H4sIAAAAAAAC/w=="}`: kimg.ErrIntegrity, `{"encoder":"gone"}`: kimg.ErrUnsupported, `{"encoder":`: kimg.ErrInvalid, strings.Repeat(" ", 1<<20): kimg.ErrLimit,
	} {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		if _, err := read(); kimg.ClassOf(err) != want {
			t.Errorf("%.50s: %v", text, err)
		}
	}
}
