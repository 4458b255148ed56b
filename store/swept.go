package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containers/storage"

	"github.com/kimg/kimg"
)

// place makes the directory in which the layer is made, beside the one that the driver gave. podman 4 empties the directory of all
// staging directories when one of its commands ends and nothing is mounted, and removes files in the order in which their directory
// lists them. Whoever sees the layer's directory has seen a file before it, which was there first: as long as it is there, nobody
// has touched the layer.
func (o *stagedOutput) place(given string, mode os.FileMode) error {
	parent := filepath.Dir(given)
	for i := range 16 { // names are listed in the order of their hashes, or as they came
		seen, dir := fmt.Sprintf("kimg.%d", i), fmt.Sprintf("layer.%d", i)
		err := os.WriteFile(filepath.Join(parent, seen), nil, 0o600)
		if err == nil {
			err = os.Mkdir(filepath.Join(parent, dir), mode)
		}
		if err != nil {
			return err
		}
		first, err := listedFirst(parent, seen, dir)
		if err == nil && !first { // in memory what came last is listed first
			err = os.Rename(filepath.Join(parent, seen), filepath.Join(parent, seen+".last"))
			if seen += ".last"; err == nil {
				first, err = listedFirst(parent, seen, dir)
			}
		}
		if err == nil && !first && i < 15 {
			err = os.Remove(filepath.Join(parent, dir))
		} else if err == nil {
			o.seen, o.dir = filepath.Join(parent, seen), filepath.Join(parent, dir)
			break
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// listedFirst tells whether a directory lists one name before another.
func listedFirst(dir, one, other string) (bool, error) {
	d, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	return slices.Index(names, one) < slices.Index(names, other), err
}

// swept turns what comes of somebody's removing the staging directory, also that nothing came of it, into an error with which whoever
// can begins anew.
func (o *stagedOutput) swept(err error) error {
	look := err // nothing but making the staging directory has happened
	if o.seen != "" {
		_, look = os.Lstat(o.seen)
	}
	if !errors.Is(look, os.ErrNotExist) && errors.Is(err, os.ErrNotExist) {
		_, look = os.Lstat(o.dir) // by somebody who has listed it before and is not done
	}
	if !errors.Is(look, os.ErrNotExist) {
		return err
	}
	return kimg.Errorf(kimg.ErrBusy, "layer", "somebody has removed the directory it was made in: %w", storage.ErrLayerUnknown)
}
