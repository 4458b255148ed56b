package store_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// indexed is an index over images of the store, with an attestation about the first and members nobody knows.
type indexed struct {
	index               []byte
	images              []*store.Image
	attestation, inside []byte // the attestation's manifest, and the one blob it names twice
}

func (ts *testStore) indexed(t *testing.T, platforms ...ispec.Platform) (x indexed) {
	t.Helper()
	x.inside = []byte(`{"_type":"statement"}`)
	blob := ispec.Descriptor{MediaType: "application/vnd.in-toto+json", Digest: digest.FromBytes(x.inside), Size: int64(len(x.inside))}
	m := ispec.Manifest{MediaType: ispec.MediaTypeImageManifest, Config: blob, Layers: []ispec.Descriptor{blob}}
	m.SchemaVersion = 2
	var err error
	x.attestation, err = json.Marshal(m)
	must(t, err)
	var entries []ispec.Descriptor
	for i, p := range platforms {
		img := ts.addImage(t, fmt.Sprint("of", i), "")
		data, _, err := img.Manifest(t.Context())
		must(t, err)
		x.images = append(x.images, img)
		entries = append(entries, ispec.Descriptor{MediaType: ispec.MediaTypeImageManifest, Digest: img.Digest, Size: int64(len(data)), Platform: &p})
	}
	entries = append(entries, ispec.Descriptor{
		MediaType: ispec.MediaTypeImageManifest, Digest: digest.FromBytes(x.attestation), Size: int64(len(x.attestation)),
		Platform:    &ispec.Platform{OS: "unknown", Architecture: "unknown"},
		Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": x.images[0].Digest.String()},
	})
	list, err := json.Marshal(entries)
	must(t, err)
	x.index = fmt.Appendf(nil, `{"schemaVersion":2, "mediaType":%q, "manifests": %s, "annotations":{"a":"b"}, "artifactType":"application/x.y", "new":1.0}`, ispec.MediaTypeImageIndex, list)
	return x
}

// record is the record of the index with the first n images, and what is kept as data.
func (x indexed) record(n int, data bool, names ...string) store.ListRecord {
	r := store.ListRecord{Names: names, Index: x.index, Instances: map[digest.Digest]string{}}
	for _, img := range x.images[:n] {
		r.Instances[img.Digest] = img.ID
	}
	if data {
		r.Data = map[digest.Digest][]byte{digest.FromBytes(x.attestation): x.attestation, digest.FromBytes(x.inside): x.inside}
	}
	return r
}

var (
	amd64 = ispec.Platform{OS: "linux", Architecture: "amd64"}
	armV6 = ispec.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}
	armV7 = ispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
)

// TestListsSideBySide: two changes with the same lists in another order do not wait for each other, and one that has a list twice not for itself.
func TestListsSideBySide(t *testing.T) {
	ts := newStore(t)
	one, two := ts.indexed(t, amd64), ts.indexed(t, armV6)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all, half sync.WaitGroup
	half.Add(2)
	for _, order := range [][]indexed{{one, two, one}, {two, one, two}} {
		all.Go(func() {
			err := ts.Change(ctx, "test", func(ctx context.Context, tx *store.Tx) error {
				err := tx.PutList(ctx, order[0].record(1, true))
				half.Done()
				half.Wait()
				return errors.Join(err, tx.PutList(ctx, order[1].record(1, true)), tx.PutList(ctx, order[2].record(1, true, "named")))
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, x := range []indexed{one, two} {
		list, err := ts.Record(t.Context(), digest.FromBytes(x.index).Encoded())
		must(t, err)
		if l, err := list.List(t.Context()); err != nil || len(l.Entries) != 2 || len(l.Entries[0].Missing) > 0 || len(l.Entries[1].Missing) > 0 {
			t.Errorf("%+v, %v", l, err)
		}
	}
	if problems, err := ts.Check(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("%+v, %v", problems, err)
	}
	checkNothingStaged(t, ts)
}

// TestPutList keeps an index byte for byte, its attestation as data (X18), and finds what is there of it (X7, X10).
func TestPutList(t *testing.T) {
	ctx := t.Context()
	ts := newStore(t)
	x := ts.indexed(t, amd64, armV6)
	list, err := ts.PutList(ctx, x.record(2, true, "list"))
	must(t, err)
	if !list.IsList() || list.ID != digest.FromBytes(x.index).Encoded() || list.TopLayer != "" || list.Digest != digest.FromBytes(x.index) {
		t.Errorf("%+v", list)
	}
	l, err := list.List(ctx)
	must(t, err)
	if !bytes.Equal(l.Index, x.index) || l.MediaType != ispec.MediaTypeImageIndex || len(l.Entries) != 3 {
		t.Fatalf("%+v", l)
	}
	for i, e := range l.Entries {
		if len(e.Missing) > 0 || (e.Image == nil) != (i == 2) || i < 2 && e.Image.ID != x.images[i].ID {
			t.Errorf("entry %d: %+v", i, e)
		}
	}
	if got, err := l.Manifest(ctx, l.Entries[2].Digest); err != nil || !bytes.Equal(got, x.attestation) {
		t.Errorf("%s, %v", got, err)
	}
	r, err := l.Blob(ctx, digest.FromBytes(x.inside), int64(len(x.inside)))
	must(t, err)
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, x.inside) {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := l.Blob(ctx, digest.FromString("other"), -1); kimg.ClassOf(err) != kimg.ErrNotFound {
		t.Error(err)
	}
	if best, _, err := l.Best(ctx); err != nil || !bytes.Equal(best, x.index) {
		t.Errorf("%s, %v", best, err)
	}
	// X12: an image is no index.
	if _, err := x.images[0].List(ctx); kimg.ClassOf(err) != kimg.ErrUnsupported {
		t.Error(err)
	}
	// X8, B15: by name and platform, a lower variant if need be; a higher one does not run.
	for _, c := range []struct {
		p    *ispec.Platform
		want int
	}{{&amd64, 0}, {&armV6, 1}, {&armV7, 1}, {&ispec.Platform{OS: "linux", Architecture: "arm", Variant: "v5"}, -1}, {&ispec.Platform{OS: "unknown", Architecture: "unknown"}, -1}} {
		img, err := ts.Resolve(ctx, "list", c.p)
		if c.want < 0 && kimg.ClassOf(err) != kimg.ErrUnsupported || c.want >= 0 && (err != nil || img.ID != x.images[c.want].ID) {
			t.Errorf("%+v: %v, %v", c.p, img, err)
		}
	}
	before := ts.inventory(t)
	if again, err := ts.PutList(ctx, x.record(1, true, "list")); err != nil || again.ID != list.ID || ts.inventory(t) != before {
		t.Errorf("put again: %v, %v\n%s", again, err, diff(before, ts.inventory(t)))
	}
	if other, err := ts.PutList(ctx, x.record(0, false, "list", "other")); err != nil || len(other.Names) != 2 {
		t.Errorf("%v, %v", other, err)
	}
	if problems, err := ts.Check(ctx); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// TestBest is row X9: the whole index, an index of less (X11), one manifest, or nothing (X12).
func TestBest(t *testing.T) {
	ctx := t.Context()
	for _, c := range []struct {
		name       string
		gone       []int // images that are not in the store
		data, good bool  // the attestation's manifest is there, and its blob
		kept       []int // entries of the result; one: its manifest
		class      kimg.Class
	}{
		{"whole", nil, true, true, []int{0, 1, 2, 3}, ""},
		{"without attestation", nil, false, false, []int{0, 1, 2}, ""},
		{"without its blob", nil, true, false, []int{0, 1, 2}, ""},
		{"two", []int{0}, true, true, []int{1, 2}, ""}, // the attestation about the first goes with it
		{"one and attestation", []int{1, 2}, true, true, []int{0, 3}, ""},
		{"one", []int{0, 2}, true, true, []int{1}, ""},
		{"none", []int{0, 1, 2}, true, true, nil, kimg.ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			ts := newStore(t)
			x := ts.indexed(t, amd64, armV6, armV7)
			rec := x.record(3, c.data, "list")
			if !c.good {
				delete(rec.Data, digest.FromBytes(x.inside))
			}
			list, err := ts.PutList(ctx, rec)
			must(t, err)
			for _, i := range c.gone {
				_, err := ts.DeleteImage(ctx, x.images[i].ID, true)
				must(t, err)
			}
			l, err := list.List(ctx)
			must(t, err)
			missing := 0
			for _, e := range l.Entries {
				missing += len(e.Missing)
			}
			if want := len(c.gone); c.good && missing != want || !c.good && missing == want {
				t.Errorf("%d missing: %+v", missing, l.Entries)
			}
			data, mediaType, err := l.Best(ctx)
			if kimg.ClassOf(err) != c.class {
				t.Fatal(err)
			}
			if len(c.kept) == 0 {
				return
			}
			if len(c.kept) == 1 {
				if d := l.Entries[c.kept[0]]; digest.FromBytes(data) != d.Digest || mediaType != d.MediaType {
					t.Errorf("%s: %s", mediaType, data)
				}
				return
			}
			var got, want map[string]json.RawMessage
			must(t, json.Unmarshal(data, &got))
			must(t, json.Unmarshal(x.index, &want))
			var entries, all []json.RawMessage
			must(t, json.Unmarshal(got["manifests"], &entries))
			must(t, json.Unmarshal(want["manifests"], &all))
			for i, n := range c.kept {
				if len(entries) != len(c.kept) || !bytes.Equal(entries[i], all[n]) {
					t.Fatalf("%s", data)
				}
			}
			delete(got, "manifests")
			delete(want, "manifests")
			if mediaType != ispec.MediaTypeImageIndex || !maps.EqualFunc(got, want, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
				t.Errorf("%s: %s", mediaType, data)
			}
		})
	}
}

// TestBadLists: nothing is written for a list that is not what it should be.
func TestBadLists(t *testing.T) {
	ts := newStore(t)
	x := ts.indexed(t, amd64)
	for name, c := range map[string]struct {
		change func(*store.ListRecord)
		class  kimg.Class
	}{
		"no index":   {func(r *store.ListRecord) { r.Index = x.attestation }, kimg.ErrUnsupported},
		"cut":        {func(r *store.ListRecord) { r.Index = x.index[:40] }, kimg.ErrInvalid},
		"name":       {func(r *store.ListRecord) { r.Names = []string{"A B"} }, kimg.ErrInvalid},
		"elsewhere":  {func(r *store.ListRecord) { r.Instances[digest.FromString("x")] = x.images[0].ID }, kimg.ErrInvalid},
		"bad ID":     {func(r *store.ListRecord) { r.Instances[x.images[0].Digest] = "../x" }, kimg.ErrInvalid},
		"other data": {func(r *store.ListRecord) { r.Data[digest.FromBytes(x.inside)] = []byte("y") }, kimg.ErrIntegrity},
		"bad digest": {func(r *store.ListRecord) { r.Data["sha256:../../x"] = []byte("y") }, kimg.ErrIntegrity},
		"too much": {func(r *store.ListRecord) {
			big := make([]byte, 64<<20)
			r.Data[digest.FromBytes(big)] = big
		}, kimg.ErrLimit},
	} {
		before := ts.inventory(t)
		rec := x.record(1, true, "list")
		c.change(&rec)
		if _, err := ts.PutList(t.Context(), rec); kimg.ClassOf(err) != c.class {
			t.Errorf("%s: %v", name, err)
		}
		if after := ts.inventory(t); after != before {
			t.Errorf("%s: %s", name, diff(before, after))
		}
	}
}

// TestListTakenBack: images and their list come together or not at all.
func TestListTakenBack(t *testing.T) {
	ts := newStore(t)
	x := ts.indexed(t, amd64)
	_, err := ts.PutList(t.Context(), x.record(0, false, "other"))
	must(t, err)
	second := x
	second.index = bytes.Replace(x.index, []byte(`"a":"b"`), []byte(`"a":"c"`), 1)
	before := ts.inventory(t)
	err = ts.Change(t.Context(), "test", func(ctx context.Context, tx *store.Tx) error {
		tx.PutImage(record(t, "new", "", nil))
		must(t, tx.PutList(ctx, second.record(1, true, "list", "other")))
		tx.Record("test", func(context.Context) error { return kimg.Errorf(kimg.ErrBusy, "test", "stop") })
		return nil
	})
	if after := ts.inventory(t); kimg.ClassOf(err) != kimg.ErrBusy || after != before {
		t.Errorf("%v\n%s", err, diff(before, after))
	}
}

// TestIndexAgainstConfig is row B12: an image that is not what its index says is taken, with a warning.
func TestIndexAgainstConfig(t *testing.T) {
	ts := newStore(t)
	x := ts.indexed(t, armV6)
	_, err := ts.PutList(t.Context(), x.record(1, false, "list"))
	must(t, err)
	var log bytes.Buffer
	s, err := store.Open(store.Options{Root: ts.root, RunRoot: ts.runRoot, Driver: "overlay", DriverOptions: []string{}, NoSync: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	must(t, err)
	defer s.Close()
	img, err := s.Resolve(t.Context(), "list", &armV7)
	if err != nil || img.ID != x.images[0].ID || !strings.Contains(log.String(), "linux/amd64, not for linux/arm/v6") {
		t.Errorf("%v, %v: %s", img, err, log.String())
	}
}

// TestListThatChanged: podman changes a list in place. What comes under its old digest is another list.
func TestListThatChanged(t *testing.T) {
	ctx := t.Context()
	ts := newStore(t)
	x := ts.indexed(t, amd64)
	first, err := ts.PutList(ctx, x.record(1, true, "list"))
	must(t, err)
	changed := slices.Concat([]byte(" "), x.index)
	must(t, ts.Storage().SetImageBigData(first.ID, "manifest", changed, func(b []byte) (digest.Digest, error) { return digest.FromBytes(b), nil }))
	second, err := ts.PutList(ctx, x.record(1, true, "again"))
	must(t, err)
	if first.ID == second.ID || !strings.HasSuffix(second.Names[0], "again:latest") {
		t.Errorf("%+v", second)
	}
	for name, want := range map[string][]byte{"list": changed, "again": x.index} {
		img, err := ts.Record(ctx, name)
		must(t, err)
		if l, err := img.List(ctx); err != nil || !bytes.Equal(l.Index, want) || img.Digest != digest.FromBytes(want) {
			t.Errorf("%s: %+v, %v", name, img, err)
		}
	}
}

// TestDeleteList: with a list go the instances nobody else leads to.
func TestDeleteList(t *testing.T) {
	ctx := t.Context()
	ts := newStore(t)
	x := ts.indexed(t, amd64, armV6, armV7, ispec.Platform{OS: "linux", Architecture: "s390x"})
	_, err := ts.PutList(ctx, x.record(4, true, "list", "also"))
	must(t, err)
	second := x
	second.index = bytes.Replace(x.index, []byte(`"a":"b"`), []byte(`"a":"c"`), 1)
	second.images = x.images[:1]
	_, err = ts.PutList(ctx, second.record(1, false, "second"))
	must(t, err)
	_, err = ts.Tag(ctx, x.images[1].ID, "named")
	must(t, err)
	c, err := ts.NewContainer(ctx, x.images[2], store.ContainerOptions{})
	must(t, err)
	left := func() (ids []string) {
		all, err := ts.Images(ctx)
		must(t, err)
		for _, img := range all {
			if !img.IsList() {
				ids = append(ids, img.ID)
			}
		}
		return ids
	}
	if d, err := ts.DeleteImage(ctx, "also", false); err != nil || d.ID != "" || len(left()) != 4 {
		t.Errorf("a name: %+v, %v", d, err)
	}
	d, err := ts.DeleteImage(ctx, "list", false)
	if ids := left(); err != nil || len(d.Layers) != 1 || len(ids) != 3 || slices.Contains(ids, x.images[3].ID) {
		t.Errorf("%+v, %v: %v", d, err, ids)
	}
	must(t, ts.Change(ctx, "rm", func(_ context.Context, tx *store.Tx) error { tx.RemoveContainer(c.ID); return nil }))
	if d, err := ts.DeleteImage(ctx, "second", false); err != nil || len(d.Layers) != 1 || len(left()) != 2 {
		t.Errorf("%+v, %v", d, err)
	}
}
