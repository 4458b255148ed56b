package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/failpoint"
)

// deleteWait is how long the removal of an image waits for changes that are about to use its layers.
const deleteWait = 30 * time.Second

// deleteImage removes an image record and the layers nobody needs then, whose ids it returns.
func (s *Store) deleteImage(ctx context.Context, id string) ([]string, error) {
	var layers []string
	err := s.Change(ctx, "rmi", func(_ context.Context, tx *Tx) error {
		tx.steps = append(tx.steps, step{
			what: "image " + id,
			intent: func() (*intentStep, error) {
				layers, err := s.st.DeleteImage(id, false)
				return &intentStep{Delete: id, Layers: layers}, err
			},
			do: func(ctx context.Context) error {
				if err := failpoint.Here("image.delete.begin"); err != nil {
					return err
				}
				unlock, err := s.lockUnwanted(ctx, id, tx.intent)
				if err != nil {
					return err
				}
				defer unlock()
				if layers, err = s.st.DeleteImage(id, true); err != nil {
					return err
				}
				return failpoint.Here("image.delete.end")
			},
			// The library removes the record first: half-way through, only layers are left to remove.
			final: func(err error) bool {
				img, lerr := s.exactImage(id)
				return lerr == nil && img == nil && !errors.Is(err, storage.ErrNotAnImage)
			},
		})
		return nil
	})
	return layers, err
}

// lockUnwanted takes the digest locks of the layers that go with an image, once no living change counts on one of them.
func (s *Store) lockUnwanted(ctx context.Context, id string, mine *intent) (unlock func(), err error) {
	for deadline := time.Now().Add(deleteWait); ; {
		unlock, wanted, err := s.tryUnwanted(ctx, id, mine)
		if err != nil || !wanted {
			return unlock, err
		}
		if time.Now().After(deadline) {
			return nil, kimg.Errorf(kimg.ErrBusy, "image "+id, "another change uses its layers")
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (s *Store) tryUnwanted(ctx context.Context, id string, mine *intent) (unlock func(), wanted bool, err error) {
	layers, err := s.st.DeleteImage(id, false)
	if err != nil {
		return nil, false, err
	}
	var digests []digest.Digest
	for _, layer := range layers {
		l, err := s.layerIfThere(layer)
		if err != nil {
			return nil, false, err
		}
		if l != nil && l.UncompressedDigest != "" {
			digests = append(digests, l.UncompressedDigest)
		}
	}
	slices.Sort(digests) // everybody locks in one order
	var locks []func()
	unlock = func() {
		for _, u := range slices.Backward(locks) {
			u()
		}
	}
	for _, d := range slices.Compact(digests) {
		u, err := s.lockDigest(ctx, d)
		if err != nil {
			unlock()
			return nil, false, err
		}
		locks = append(locks, u)
	}
	for _, layer := range layers {
		if wanted, err = s.wantedElsewhere(layer, mine); err != nil || wanted {
			unlock()
			return nil, wanted, err
		}
	}
	return unlock, false, nil
}

// forgetImage removes an image record, not its layers, unless somebody has given it a name or made a container of it.
func (s *Store) forgetImage(id string) error {
	img, err := s.exactImage(id)
	if err != nil || img == nil || len(img.Names) > 0 {
		return err
	}
	users, err := s.containersOf(id)
	if err != nil || len(users) > 0 {
		return err
	}
	if err := s.st.Delete(id); err != nil && !errors.Is(err, storage.ErrNotAnID) {
		return err
	}
	return nil
}
