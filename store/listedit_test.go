package store_test

import (
	"bytes"
	"context"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/store"
)

// addTo adds an image to an index, nil: a new one.
func addTo(t testing.TB, index []byte, img *store.Image) ([]byte, map[digest.Digest]string) {
	if t == nil {
		t = childTB{}
	}
	t.Helper()
	d, err := img.Descriptor(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if index == nil {
		if index, err = convert.NewIndex(); err != nil {
			t.Fatal(err)
		}
	}
	d.Platform = &ispec.Platform{OS: "linux", Architecture: "amd64"}
	if index, err = convert.SetInIndex(index, d, nil); err != nil {
		t.Fatal(err)
	}
	return index, map[digest.Digest]string{d.Digest: img.ID}
}

func init() { // what other processes do
	for i := range many {
		name := string(rune('a' + i))
		helpers["list "+name] = func(ctx context.Context, s *store.Store) error { return listImage(ctx, s, "list", name) }
	}
}

const many = 8

// listImage adds an image to a list.
func listImage(ctx context.Context, s *store.Store, list, image string) error {
	img, err := s.Resolve(ctx, image, nil)
	if err != nil {
		return err
	}
	_, err = s.EditList(ctx, store.ListEdit{Ref: list, Create: true, Edit: func(index []byte) (rec store.ListRecord, err error) {
		rec.Index, rec.Instances = addTo(nil, index, img)
		return rec, nil
	}})
	return err
}

func TestEditList(t *testing.T) {
	ctx := t.Context()
	ts := newStore(t)
	one, two := ts.addImage(t, "one", "one"), ts.addImage(t, "two", "two")
	keep := func(index []byte) (store.ListRecord, error) { return store.ListRecord{Index: index}, nil }
	list, err := ts.EditList(ctx, store.ListEdit{Ref: "list", New: true, Edit: keep})
	if err != nil || !list.IsList() || strings.Join(list.Names, " ") != "localhost/list:latest" {
		t.Fatalf("%+v, %v", list, err)
	}
	if l, err := list.List(ctx); err != nil || len(l.Entries) != 0 || l.Format != convert.OCI {
		t.Errorf("%+v, %v", l, err)
	}
	must(t, listImage(ctx, ts.Store, "list", "one"))
	_, err = ts.Tag(ctx, list.ID, "more")
	must(t, err)
	must(t, listImage(ctx, ts.Store, "more", "two"))
	now, err := ts.Record(ctx, "list")
	must(t, err)
	l, err := now.List(ctx)
	if err != nil || now.ID != list.ID || len(now.Names) != 2 || len(l.Entries) != 2 || l.Entries[0].Image.ID != one.ID || l.Entries[1].Image.ID != two.ID ||
		now.Digest != digest.FromBytes(l.Index) {
		t.Errorf("%+v, %v, %v", now, l.Manifests, err)
	}
	// An instance may be elsewhere, and an entry goes with where it was.
	far := ispec.Descriptor{MediaType: ispec.MediaTypeImageManifest, Digest: digest.FromString("far"), Size: 3}
	_, err = ts.EditList(ctx, store.ListEdit{Ref: "list", Edit: func(index []byte) (rec store.ListRecord, err error) {
		index, err = convert.ReduceIndex(index, func(d ispec.Descriptor) bool { return d.Digest != one.Digest })
		must(t, err)
		rec.Index, err = convert.SetInIndex(index, far, nil)
		rec.Instances = map[digest.Digest]string{far.Digest: "docker://registry.example/far"}
		return rec, err
	}})
	must(t, err)
	now, err = ts.Record(ctx, "list")
	must(t, err)
	l, err = now.List(ctx)
	if err != nil || len(l.Entries) != 2 || l.Entries[0].Image.ID != two.ID || l.Entries[1].Elsewhere != "docker://registry.example/far" || len(l.Entries[1].Missing) != 1 {
		t.Errorf("%+v, %v", l, err)
	}
	if data, err := ts.Storage().ImageBigData(list.ID, "instances.json"); err != nil || strings.Contains(string(data), one.Digest.String()) || !strings.Contains(string(data), `"":"`+list.ID) {
		t.Errorf("%s, %v", data, err)
	}
	// A list does not take its images along that nobody put with it.
	_, err = ts.Untag(ctx, two.ID)
	must(t, err)
	before := ts.inventory(t)
	for name, c := range map[string]struct {
		e     store.ListEdit
		class kimg.Class
	}{
		"taken":    {store.ListEdit{Ref: "list", New: true, Edit: keep}, kimg.ErrExists},
		"by image": {store.ListEdit{Ref: "one", New: true, Edit: keep}, kimg.ErrExists},
		"image":    {store.ListEdit{Ref: "one", Create: true, Edit: keep}, kimg.ErrUnsupported},
		"none":     {store.ListEdit{Ref: "nosuch", Edit: keep}, kimg.ErrNotFound},
		"name":     {store.ListEdit{Ref: "A B", Create: true, Edit: keep}, kimg.ErrInvalid},
		"digest":   {store.ListEdit{Ref: "x@" + far.Digest.String(), New: true, Edit: keep}, kimg.ErrInvalid},
		"no index": {store.ListEdit{Ref: "list", Edit: func([]byte) (store.ListRecord, error) { return store.ListRecord{Index: []byte("{}")}, nil }}, kimg.ErrInvalid},
		"refused": {store.ListEdit{Ref: "list", Edit: func([]byte) (store.ListRecord, error) {
			return store.ListRecord{}, kimg.Errorf(kimg.ErrDenied, "x", "no")
		}}, kimg.ErrDenied},
		"data": {store.ListEdit{Ref: "list", Edit: func(index []byte) (store.ListRecord, error) {
			return store.ListRecord{Index: index, Data: map[digest.Digest][]byte{far.Digest: nil}}, nil
		}}, kimg.ErrIntegrity},
	} {
		if _, err := ts.EditList(ctx, c.e); kimg.ClassOf(err) != c.class {
			t.Errorf("%s: %v", name, err)
		}
		if after := ts.inventory(t); after != before {
			t.Errorf("%s: %s", name, diff(before, after))
		}
	}
	_, err = ts.DeleteImage(ctx, "list", true)
	must(t, err)
	_, err = ts.Record(ctx, two.ID)
	must(t, err)
}

// TestListFromManySides: what many threads and processes add at once is all there, also to a list that nobody has made before.
func TestListFromManySides(t *testing.T) {
	ts := newStore(t)
	var wg sync.WaitGroup
	for i := range many {
		name := string(rune('a' + i))
		ts.addImage(t, name, name)
		s := ts.Store
		if i%2 == 0 {
			s = ts.open(t)
		}
		wg.Go(func() {
			if i%3 == 0 {
				if err, _ := ts.run(t, "list "+name, ""); err != nil {
					t.Error(err)
				}
			} else if err := listImage(t.Context(), s, "list", name); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list, err := ts.Record(t.Context(), "list")
	must(t, err)
	if l, err := list.List(t.Context()); err != nil || len(l.Entries) != many {
		t.Errorf("%+v, %v", l, err)
	}
	checkNothingStaged(t, ts)
}

// TestListChangedByOthers: a tool that takes no lock is noticed, and what it wrote is neither overwritten nor taken back.
func TestListChangedByOthers(t *testing.T) {
	ctx := t.Context()
	ts := newStore(t)
	ts.addImage(t, "one", "one")
	two := ts.addImage(t, "two", "two")
	must(t, listImage(ctx, ts.Store, "list", "one"))
	list, err := ts.Record(ctx, "list")
	must(t, err)
	index, _, err := list.Manifest(ctx)
	must(t, err)
	foreign := bytes.Replace(index, []byte(`"schemaVersion"`), []byte(`"foreign":1,"schemaVersion"`), 1)
	change := func() error {
		return ts.Storage().SetImageBigData(list.ID, "manifest", foreign, func(b []byte) (digest.Digest, error) { return digest.FromBytes(b), nil })
	}
	for name, when := range map[string]bool{"before": true, "after": false} {
		must(t, ts.Storage().SetImageBigData(list.ID, "manifest", index, func(b []byte) (digest.Digest, error) { return digest.FromBytes(b), nil }))
		err = ts.Change(ctx, "test", func(ctx context.Context, tx *store.Tx) error {
			if when {
				tx.Record("other", func(context.Context) error { return change() })
			}
			_, err := tx.EditList(ctx, store.ListEdit{Ref: "list", Edit: func(index []byte) (rec store.ListRecord, err error) {
				rec.Index, rec.Instances = addTo(t, index, two)
				return rec, nil
			}})
			if !when {
				tx.Record("other", func(context.Context) error { must(t, change()); return os.ErrClosed })
			}
			return err
		})
		now, rerr := ts.Record(ctx, "list")
		must(t, rerr)
		if data, _, merr := now.Manifest(ctx); err == nil || when && kimg.ClassOf(err) != kimg.ErrBusy || merr != nil || !bytes.Equal(data, foreign) {
			t.Errorf("%s: %v, %v: %s", name, err, merr, data)
		}
	}
}
