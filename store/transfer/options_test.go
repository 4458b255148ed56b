package transfer_test

import (
	"archive/tar"
	"fmt"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/store/transfer"
)

// U1: options that cannot be are refused before anything is fetched or written.
func TestOptionsAreChecked(t *testing.T) {
	st, src := newStore(t, "overlay"), source(testimage.NewImage(1, testimage.ImageOptions{}))
	before := st.inventory(t)
	for _, names := range [][]string{{"UPPER"}, {"good", ""}, {"two words"}, {"../up"}, {"a@sha256:00"}} {
		if _, err := pull(t, st, src, transfer.PullOptions{Names: names}); kimg.ClassOf(err) != kimg.ErrInvalid || len(src.fetched) > 0 {
			t.Errorf("%q: %v, fetched %v", names, err, src.fetched)
		}
	}
	if after := st.inventory(t); after != before {
		t.Errorf("the store was\n%s\nand is\n%s", before, after)
	}
}

// U7: every layer has the chain of all below it, computed step by step, as its label; equal layers differ by what is below.
func TestChain(t *testing.T) {
	one := testimage.NewImage(1, testimage.ImageOptions{}).Layers[0].Tar
	img := testimage.NewImage(2, testimage.ImageOptions{Tars: [][]byte{one, testimage.PackTar(), one}, Gzip: true})
	st := newStore(t, "overlay")
	r, err := pull(t, st, source(img), transfer.PullOptions{})
	must(t, err)
	chain, parent, ids := "", "", []string{}
	for i, d := range r.Layers {
		if chain = img.Layers[i].DiffID; i > 0 {
			chain = digest.FromString(parent + " " + chain).String()
		}
		parent = chain
		l, err := st.Storage().Layer(d.ID)
		must(t, err)
		if got := fmt.Sprint(l.Flags["containerd.io/snapshot.ref"]); got != chain || slices.Contains(ids, l.ID) {
			t.Errorf("layer %d is %s of %s, not of %s", i, l.ID, got, chain)
		}
		ids = append(ids, l.ID)
	}
}

// U28: what the options of the store say about files holds for those that are unpacked: a namespace that does not have an
// owner refuses the layer, or gives the file its own.
func TestStoreOptionsAreForLayersToo(t *testing.T) {
	img := testimage.NewImage(3, testimage.ImageOptions{Tars: [][]byte{
		testimage.PackTar(testimage.Member{Header: tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644, Uid: 1<<31 - 10}}),
	}})
	for option, want := range map[string]kimg.Class{"": kimg.ErrUnsupported, "overlay.ignore_chown_errors=true": ""} {
		if testenv.IsRoot() {
			want = "" // has every owner
		}
		options := []string{}
		if option != "" {
			options = append(options, option)
		}
		st := newStore(t, "overlay", options...)
		before := st.inventory(t)
		_, err := pull(t, st, source(img), transfer.PullOptions{})
		if kimg.ClassOf(err) != want {
			t.Errorf("%q: %v", option, err)
		}
		if err != nil && st.inventory(t) != before {
			t.Errorf("it left something:\n%s", st.inventory(t))
		}
	}
}
