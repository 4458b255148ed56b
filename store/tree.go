package store

import (
	"context"
	"slices"

	"github.com/containers/storage"

	"github.com/kimg/kimg"
)

// TreeLayer is a layer, and the images that have it.
type TreeLayer struct {
	LayerInfo
	TopOf    []*Image     // have it as their newest layer
	SharedBy []*Image     // have it below others; for [Image.Tree] without the image itself
	Children []*TreeLayer // the layers on top of it; for [Image.Dependents] only
}

// Tree returns the layers of an image, base first, with the other images that have them too. It looks at the store's
// layers once.
func (i *Image) Tree(ctx context.Context) ([]*TreeLayer, error) {
	f, err := i.s.forest(ctx)
	if err != nil {
		return nil, err
	}
	layers, err := i.Layers(ctx)
	if err != nil {
		return nil, err
	}
	tree := make([]*TreeLayer, len(layers))
	for n, l := range layers {
		if tree[n] = f.layers[l.ID]; tree[n] == nil { // it came between the two looks
			tree[n] = &TreeLayer{LayerInfo: l}
		}
		tree[n].Children = nil
		tree[n].SharedBy = slices.DeleteFunc(tree[n].SharedBy, func(other *Image) bool { return other.ID == i.ID })
	}
	return tree, nil
}

// Dependents returns the newest layer of an image with all that stands on it. Class notfound for an image without layers.
func (i *Image) Dependents(ctx context.Context) (*TreeLayer, error) {
	f, err := i.s.forest(ctx)
	if err != nil {
		return nil, err
	}
	if top := f.layers[i.TopLayer]; top != nil {
		return top, nil
	}
	return nil, kimg.Errorf(kimg.ErrNotFound, i.label(), "the image has no layer that others could stand on")
}

// forest is every layer of the store under its id.
type forest struct{ layers map[string]*TreeLayer }

func (s *Store) forest(ctx context.Context) (forest, error) {
	images, err := s.Images(ctx)
	if err != nil {
		return forest{}, err
	}
	records, err := s.st.Layers()
	if err != nil {
		return forest{}, wrap("layers", err)
	}
	f, parents := forest{map[string]*TreeLayer{}}, map[string]string{}
	for _, r := range records {
		f.layers[r.ID], parents[r.ID] = &TreeLayer{LayerInfo: layerInfo(&r)}, r.Parent
	}
	for _, r := range records {
		if below := f.layers[r.Parent]; below != nil && r.ID != r.Parent {
			below.Children = append(below.Children, f.layers[r.ID])
		}
	}
	for _, img := range images {
		for id, depth := img.TopLayer, 0; f.layers[id] != nil && depth < maxLayers; depth++ {
			if depth == 0 {
				f.layers[id].TopOf = append(f.layers[id].TopOf, img)
			} else {
				f.layers[id].SharedBy = append(f.layers[id].SharedBy, img)
			}
			id = parents[id]
		}
	}
	return f, nil
}

func layerInfo(l *storage.Layer) LayerInfo {
	size := l.UncompressedSize
	if l.UncompressedDigest == "" && l.TOCDigest == "" {
		size = -1
	}
	return LayerInfo{ID: l.ID, DiffID: l.UncompressedDigest, Size: size}
}
