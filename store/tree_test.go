package store_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// Three images on each other, one beside them, and a container: each layer knows who has it.
func TestTree(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	base := putImage(t, s, "base", makeTar(t, file{name: "a", content: "a"}))
	middle := putImage(t, s, "middle", makeTar(t, file{name: "a", content: "a"}), makeTar(t, file{name: "b", content: "b"}))
	top := putImage(t, s, "top", makeTar(t, file{name: "a", content: "a"}), makeTar(t, file{name: "b", content: "b"}), makeTar(t, file{name: "c", content: "c"}))
	putImage(t, s, "beside", makeTar(t, file{name: "x", content: "x"}))
	c, err := s.NewContainer(ctx, middle, store.ContainerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ids := func(images []*store.Image) (all []string) {
		for _, img := range images {
			all = append(all, img.ID)
		}
		slices.Sort(all)
		return all
	}
	sorted := func(all ...string) []string { slices.Sort(all); return all }

	tree, err := middle.Tree(ctx)
	if err != nil || len(tree) != 2 {
		t.Fatalf("%v %+v", err, tree)
	}
	for i, want := range []struct{ top, shared []string }{{[]string{base.ID}, []string{top.ID}}, {[]string{middle.ID}, []string{top.ID}}} {
		if l := tree[i]; !slices.Equal(ids(l.TopOf), want.top) || !slices.Equal(ids(l.SharedBy), want.shared) || l.Children != nil || l.Size <= 0 || l.DiffID == "" {
			t.Errorf("layer %d: %+v", i, l)
		}
	}
	below, err := base.Dependents(ctx)
	if err != nil || !slices.Equal(ids(below.TopOf), []string{base.ID}) || !slices.Equal(ids(below.SharedBy), sorted(middle.ID, top.ID)) || len(below.Children) != 1 {
		t.Fatalf("%v %+v", err, below)
	}
	on := below.Children[0]
	if on.ID != middle.TopLayer || len(on.Children) != 2 {
		t.Fatalf("%+v", on)
	}
	for _, l := range on.Children {
		if l.ID != top.TopLayer && l.ID != c.LayerID {
			t.Errorf("%+v", l)
		}
	}
	empty := putImage(t, s, "empty")
	if tree, err := empty.Tree(ctx); err != nil || len(tree) != 0 {
		t.Errorf("%v %v", err, tree)
	}
	if _, err := empty.Dependents(ctx); !errors.Is(err, kimg.ErrNotFound) {
		t.Error(err)
	}
}

func TestHistory(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	img := putImage(t, s, "img", makeTar(t, file{name: "a", content: "a"}), makeTar(t, file{name: "b", content: "b"}))
	layers, err := img.Layers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := img.History(ctx)
	if err != nil || len(steps) != 2 || steps[0].Layer != layers[0] || steps[1].Layer != layers[1] {
		t.Errorf("%v %+v, layers %+v", err, steps, layers)
	}
	for base, want := range map[*store.Image]int{nil: 0, img: 2} {
		c, err := s.NewContainer(ctx, base, store.ContainerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if steps, err := c.History(ctx); err != nil || len(steps) != want {
			t.Errorf("%v %+v", err, steps)
		}
	}
}

// putImage makes an image of tars, base first.
func putImage(t *testing.T, s *testStore, name string, tars ...[]byte) *store.Image {
	t.Helper()
	top := ""
	var diffIDs []digest.Digest
	for _, data := range tars {
		l, err := s.AddLayer(t.Context(), top, store.TarSource(bytes.NewReader(data)))
		if err != nil {
			t.Fatal(err)
		}
		top, diffIDs = l.ID, append(diffIDs, l.UncompressedDigest)
	}
	img, err := s.PutImage(t.Context(), record(t, name, top, []string{name}, diffIDs...))
	if err != nil {
		t.Fatal(err)
	}
	return img
}
