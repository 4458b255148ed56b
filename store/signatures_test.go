package store_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg/store"
)

// signatures reads those of both manifests of an image.
func signatures(t *testing.T, img *store.Image, of ...digest.Digest) (texts []string) {
	t.Helper()
	for _, d := range of {
		all, err := img.Signatures(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(bytes.Join(all, []byte("+"))))
	}
	return texts
}

// TestSignaturesOfManifests: an image whose manifest is replaced keeps the signatures of the one before, and they are not those of the
// new one. What is taken back leaves all of them as they were.
func TestSignaturesOfManifests(t *testing.T) {
	one := record(t, "signed", "", []string{"localhost/signed:latest"})
	other := one
	other.Manifest = bytes.Replace(one.Manifest, []byte(`{`), []byte(`{"annotations":{"a":"b"},`), 1)
	first, second := digest.FromBytes(one.Manifest), digest.FromBytes(other.Manifest)
	one.Signatures = map[digest.Digest][][]byte{first: {[]byte("s1"), []byte("s2")}}
	for name, signed := range map[string]map[digest.Digest][][]byte{
		"unsigned": nil, "signed": {second: {[]byte("s3")}}, "the first anew": {first: {[]byte("s4")}},
	} {
		t.Run(name, func(t *testing.T) {
			ts := newStore(t)
			if _, err := ts.PutImage(t.Context(), one); err != nil {
				t.Fatal(err)
			}
			before, err := ts.Storage().Image(one.ID())
			if err != nil {
				t.Fatal(err)
			}
			other.Signatures = signed
			stop := errors.New("stop")
			err = ts.Change(t.Context(), "put", func(_ context.Context, tx *store.Tx) error {
				tx.PutImage(other)
				tx.Record("stop", func(context.Context) error { return stop })
				return nil
			})
			if !errors.Is(err, stop) {
				t.Fatal(err)
			}
			img, err := ts.Resolve(t.Context(), one.ID(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := signatures(t, img, first, second); !slices.Equal(got, []string{"s1+s2", ""}) {
				t.Errorf("taken back: %q", got)
			}
			after, err := ts.Storage().Image(one.ID())
			if err != nil || after.Metadata != before.Metadata || after.BigDataDigests["signatures"] != before.BigDataDigests["signatures"] {
				t.Errorf("taken back: %+v, %v; was %+v", after, err, before)
			}
			if img, err = ts.PutImage(t.Context(), other); err != nil {
				t.Fatal(err)
			}
			want := map[digest.Digest][][]byte{first: one.Signatures[first]}
			maps.Copy(want, signed)
			texts := []string{string(bytes.Join(want[first], []byte("+"))), string(bytes.Join(want[second], []byte("+")))}
			if got := signatures(t, img, first, second); !slices.Equal(got, texts) {
				t.Errorf("%q, want %q", got, texts)
			}
		})
	}
}
