package store

import (
	"errors"

	"github.com/containers/storage"
)

// attempts is how often what others disturb is begun.
const attempts = 3

// Again calls fn again, three times in all at most, when a layer it was to use or was making has been removed meanwhile: another tool
// pruned it, or podman 4 emptied the directory in which layers are made, as it does whenever one of its commands ends and nothing is
// mounted. fn begins anew each time; a [Store.Change] that failed has left nothing.
func Again(fn func() error) error {
	var err error
	for range attempts {
		if err = fn(); !errors.Is(err, storage.ErrLayerUnknown) {
			break
		}
	}
	return err
}
