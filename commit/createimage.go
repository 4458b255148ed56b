package commit

import (
	"context"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// CreateImage makes an image of a configuration, whose bytes are kept when they are valid in the format, an image of the store that it
// stands on ("": none), and the layers that were built on that one up to layer (nil: none). The manifest names the parent's layers as the
// parent's does, and says what the image was made from. Names move from the images that had them, which stay; without Names the
// image has only its ID. Of the options Format, Names, Annotations and UnsetAnnotations count.
//
// The configuration must list the layers that the image has (class invalid). A last one that is the empty layer, which steps have that
// changed nothing, is taken from it, and its history entry is marked so. Class notfound: no such parent. Class invalid: a layer that does not
// stand on the parent, comes from another store or was released.
func CreateImage(ctx context.Context, st *store.Store, config []byte, parent string, layer *ROLayer, o Options) (Result, error) {
	names, err := store.NormalizeNames(o.Names)
	if err != nil {
		return Result{}, err
	}
	if f := o.format(); f != convert.OCI && f != convert.DockerV2S2 {
		return Result{}, kimg.Errorf(kimg.ErrUnsupported, "image", "format %s", kimg.Quote(string(f)))
	}
	parsed, err := convert.Parse(convert.Document{Format: convert.DockerV2S2, Config: config}, nil)
	if err != nil {
		return Result{}, err
	}
	var p below
	if parent != "" {
		img, err := st.Resolve(ctx, parent, nil)
		if err != nil {
			return Result{}, err
		}
		if p, err = parentOf(ctx, st, img); err != nil {
			return Result{}, err
		}
	}
	result := Result{Names: names, Layer: layerdiff.Blob{DiffID: noLayer().DiffID, Empty: true}}
	if layer != nil {
		made, err := layer.since(st, p.top)
		if err != nil {
			return Result{}, err
		}
		for _, m := range made {
			p.layers, p.top = append(p.layers, m.blob), m.id
		}
		result.Layer = layerdiff.Blob{DiffID: layer.blob.DiffID, Size: layer.blob.Size, Empty: layer.Empty()}
	}
	if parsed, err = matching(parsed, p.layers, result.Layer.Empty); err != nil {
		return Result{}, err
	}
	docs, err := write(o.format(), parsed, p.layers, o.annotate(p.info.inherited, p.info))
	if err != nil {
		return Result{}, err
	}
	created := time.Now().UTC()
	if c := parsed.Docker().Created; c != nil {
		created = c.UTC()
	}
	err = st.Change(ctx, "create image", func(_ context.Context, tx *store.Tx) error {
		tx.PutImage(store.ImageRecord{
			Config: docs.config, Manifest: docs.manifest, ManifestType: docs.manifestType, TopLayer: p.top, Names: names, Created: created,
		})
		return nil
	})
	if err != nil {
		return Result{}, err
	}
	result.fill(docs)
	return result, nil
}

// below is what a new image stands on.
type below struct {
	top    string // id of the newest layer; "": none
	layers []convert.Layer
	config docker.Image
	info   baseImage
}

// parentOf reads an image that others stand on. Where its manifest does not say what its layers are, they are named by their diffIDs.
func parentOf(ctx context.Context, st *store.Store, img *store.Image) (below, error) {
	p := below{top: img.TopLayer}
	state, err := st.ImageCopyData(ctx, img.ID)
	if err != nil {
		return p, err
	}
	p.config = state.Config().Docker()
	base, info, err := readBase(ctx, img, state)
	if kimg.ClassOf(err) == kimg.ErrState {
		err = kimg.Errorf(kimg.ErrDamaged, img.ID, "%w", err)
	}
	if err != nil {
		return p, err
	}
	p.info, p.layers = info, slices.Clone(info.layers)
	if p.layers == nil {
		if err := measure(ctx, st, base, 0); err != nil {
			return p, err
		}
		p.layers = asLayers(base)
	}
	for i, l := range base {
		p.layers[i].DiffID = l.DiffID
	}
	return p, nil
}

// since returns the layers that were made on top of one, which must be among those below.
func (l *ROLayer) since(st *store.Store, top string) ([]made, error) {
	base := ""
	if l.Image != nil {
		base = l.Image.TopLayer
	}
	i := slices.IndexFunc(l.made, func(m made) bool { return m.id == top })
	switch {
	case l.released.Load():
		return nil, kimg.Errorf(kimg.ErrInvalid, "layer", "was released")
	case l.b.st.Storage() != st.Storage():
		return nil, kimg.Errorf(kimg.ErrInvalid, "layer", "is in another store")
	case i >= 0 || top == base:
		return l.made[i+1:], nil
	}
	return nil, kimg.Errorf(kimg.ErrInvalid, "layer", "does not stand on the parent")
}

// matching holds a configuration against the layers of the image, the newest of which is missing when the step changed nothing.
func matching(config convert.Config, layers []convert.Layer, empty bool) (convert.Config, error) {
	want := make([]digest.Digest, len(layers))
	for i, l := range layers {
		want[i] = l.DiffID
	}
	have := config.Docker().RootFS.DiffIDs
	if last := len(want); empty && len(have) == last+1 && have[last] == noLayer().DiffID && slices.Equal(have[:last], want) {
		return config.Edit(func(img *docker.Image) error {
			img.RootFS.DiffIDs = img.RootFS.DiffIDs[:last]
			for i, h := range slices.Backward(img.History) {
				if !h.EmptyLayer {
					img.History[i].EmptyLayer = true
					break
				}
			}
			return nil
		})
	}
	if len(have) != len(want) {
		return config, kimg.Errorf(kimg.ErrInvalid, "config", "lists %d layers, the parent and what was built on it have %d", len(have), len(want))
	}
	for i := range want {
		if have[i] != want[i] {
			return config, kimg.Errorf(kimg.ErrInvalid, "config", "lists layer %d as %s, it is %s", i, have[i], want[i])
		}
	}
	return config, nil
}
