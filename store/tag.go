package store

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/containers/storage"

	"github.com/kimg/kimg"
)

// Tag gives the image ref means more names. A name another image has moves. A manifest list is tagged itself.
func (s *Store) Tag(ctx context.Context, ref string, names ...string) (*Image, error) {
	rec, _, err := s.resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	full, err := NormalizeNames(names)
	if err != nil {
		return nil, err
	}
	for _, n := range full {
		if strings.Contains(n, "@") {
			return nil, kimg.Errorf(kimg.ErrInvalid, kimg.Quote(n), "a name to give has a tag, not a digest")
		}
	}
	err = s.rename(ctx, "tag", rec, full, s.st.AddNames)
	if err != nil {
		return nil, err
	}
	return s.reread(rec.ID)
}

// Untag takes names from the image ref means: the given ones, which it must have, or all. The image stays.
func (s *Store) Untag(ctx context.Context, ref string, names ...string) (*Image, error) {
	rec, _, err := s.resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	full := make([]string, 0, len(names))
	for _, n := range names {
		name, err := s.nameOf(rec, n)
		if err != nil {
			return nil, err
		}
		full = append(full, name)
	}
	if len(names) == 0 {
		full = rec.Names
	}
	if err := s.rename(ctx, "untag", rec, full, s.st.RemoveNames); err != nil {
		return nil, err
	}
	return s.reread(rec.ID)
}

// nameOf finds which of an image's names a short name means.
func (s *Store) nameOf(rec *storage.Image, short string) (string, error) {
	if slices.Contains(rec.Names, short) {
		return short, nil
	}
	img, name, err := s.byName(short)
	if err != nil {
		return "", err
	}
	if img == nil || img.ID != rec.ID || !slices.Contains(rec.Names, name) {
		return "", kimg.Errorf(kimg.ErrNotFound, kimg.Escape(short, maxReference), "not a name of image %s", rec.ID[:12])
	}
	return name, nil
}

// rename changes names in one save of the library, and gives them back if the change fails.
func (s *Store) rename(ctx context.Context, op string, rec *storage.Image, names []string, change func(string, []string) error) error {
	if len(names) == 0 {
		return nil
	}
	return s.Change(ctx, op, func(_ context.Context, tx *Tx) error {
		owners := map[string]string{}
		for _, n := range names {
			owner, err := s.imageNamed(n)
			if err != nil {
				return err
			}
			if owner != nil {
				owners[n] = owner.ID
			}
		}
		tx.Record("image "+rec.ID, func(context.Context) error {
			if err := change(rec.ID, names); err != nil {
				return err // the library's save is atomic: nothing is to be taken back
			}
			tx.Undo(func(context.Context) error {
				var errs []error
				for _, n := range names {
					if owner := owners[n]; owner != "" {
						errs = append(errs, s.st.AddNames(owner, []string{n}))
					} else {
						errs = append(errs, s.st.RemoveNames(rec.ID, []string{n}))
					}
				}
				return errors.Join(errs...)
			})
			return nil
		})
		return nil
	})
}

func (s *Store) reread(id string) (*Image, error) {
	rec, err := s.st.Image(id)
	if err != nil {
		return nil, wrap("image "+id, err)
	}
	return s.image(rec), nil
}

// Deleted says what DeleteImage did.
type Deleted struct {
	Untagged []string // names that are gone
	ID       string   // of the image that is gone; "": it stays under its other names
	Layers   []string // ids of the layers that went with it
}

// DeleteImage removes what ref means, as podman rmi does: a name of an image that has others is only taken away; otherwise
// the image goes, with the layers nobody else needs. An image a container was made from, or that somebody has a lease of, is class busy. An image with
// several names goes by its ID only when force says so; force also lets it go by one of them. With a manifest list that was put
// by [Store.PutList] go its instances that have no name, no container and no other list.
func (s *Store) DeleteImage(ctx context.Context, ref string, force bool) (Deleted, error) {
	rec, name, err := s.resolve(ctx, ref)
	if err != nil {
		return Deleted{}, err
	}
	if rec.ReadOnly {
		return Deleted{}, kimg.Errorf(kimg.ErrReadOnly, kimg.Escape(ref, maxReference), "lies in a read-only store")
	}
	switch {
	case name != "" && len(rec.Names) > 1 && !force:
		err := s.rename(ctx, "rmi", rec, []string{name}, s.st.RemoveNames)
		return Deleted{Untagged: []string{name}}, err
	case name == "" && len(rec.Names) > 1 && !force:
		return Deleted{}, kimg.Errorf(kimg.ErrBusy, rec.ID, "has several names (%s): remove them or use --force", kimg.Escape(strings.Join(rec.Names, ", "), 256))
	}
	if err := s.collectLeases(ctx, rec.ID); err != nil {
		return Deleted{}, err
	}
	if users, err := s.containersOf(rec.ID); err != nil || len(users) > 0 {
		if err == nil {
			err = kimg.Errorf(kimg.ErrBusy, kimg.Escape(ref, maxReference), "containers or leases use it: %s", kimg.Escape(strings.Join(users, ", "), 256))
		}
		return Deleted{}, err
	}
	instances, err := s.ownInstances(ctx, rec)
	if err != nil {
		return Deleted{}, err
	}
	gone := Deleted{Untagged: rec.Names, ID: rec.ID}
	for _, id := range append([]string{rec.ID}, instances...) {
		layers, err := s.deleteImage(ctx, id)
		if err != nil {
			return Deleted{}, err
		}
		gone.Layers = append(gone.Layers, layers...)
	}
	return gone, nil
}

// containersOf names the containers made from an image, and its leases.
func (s *Store) containersOf(imageID string) ([]string, error) {
	all, err := s.st.Containers()
	if err != nil {
		return nil, wrap("containers", err)
	}
	var names []string
	for _, c := range all {
		if c.ImageID == imageID {
			names = append(names, nameOrID(c.Names, c.ID))
		}
	}
	return names, nil
}

func nameOrID(names []string, id string) string {
	if len(names) > 0 {
		return names[0]
	}
	return id
}
