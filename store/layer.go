package store

import (
	"context"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
)

// Layer is one layer of the store. The record is a snapshot.
type Layer struct{ LayerInfo }

// Layer finds a layer by its ID, the beginning of its ID (12 digits or more) or its diffID. Several candidates are class invalid.
// Layers that containers write to are none of them.
func (s *Store) Layer(ctx context.Context, ref string) (*Layer, error) {
	if err := check(ctx); err != nil {
		return nil, err
	}
	layers, err := s.st.Layers()
	if err != nil {
		return nil, wrap("layers", err)
	}
	containers, err := s.st.Containers()
	if err != nil {
		return nil, wrap("containers", err)
	}
	var found []*Layer
	for i := range layers {
		l := &layers[i]
		begins := len(ref) >= 12 && isHex(ref) && strings.HasPrefix(l.ID, ref)
		if !begins && (l.UncompressedDigest == "" || l.UncompressedDigest != digest.Digest(ref)) {
			continue
		}
		rw := false
		for _, c := range containers {
			rw = rw || c.LayerID == l.ID
		}
		if !rw {
			found = append(found, &Layer{layerInfo(l)})
		}
	}
	found = slices.CompactFunc(found, func(a, b *Layer) bool { return a.ID == b.ID })
	switch len(found) {
	case 0:
		return nil, kimg.Errorf(kimg.ErrNotFound, kimg.Quote(ref), "no such layer in this store")
	case 1:
		return found[0], nil
	}
	return nil, kimg.Errorf(kimg.ErrInvalid, kimg.Quote(ref), "means %d layers, as the same change was made on different ones: say which by its id", len(found))
}
