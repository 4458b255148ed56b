package store

import (
	"bytes"
	"context"
	"strings"

	"github.com/containers/image/v5/manifest"
	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/strict"
)

// ListEdit is a change of a manifest list in its place, as podman changes its own: the list keeps its ID and its names.
type ListEdit struct {
	Ref    string // the list
	Create bool   // when there is none it is made, with Ref as its name
	New    bool   // it is made, and class exists when the name is taken

	// Edit returns the list as it is to be: Index is all of it; Names, Instances and Data are what is new. Images of the index that
	// Instances does not have are looked for in the store. An instance may be somewhere else: then its value is a reference with
	// its transport, as podman writes it.
	Edit func(index []byte) (ListRecord, error)
}

// EditList registers a change of a manifest list and returns the list's ID. Whoever else wants to change the same list waits until this
// change has ended, kimg as well as podman and buildah: nothing is lost. A tool that does not wait is class busy. Class unsupported
// when Ref means an image.
func (tx *Tx) EditList(ctx context.Context, e ListEdit) (id string, err error) {
	list, err := tx.lockList(ctx, e)
	if err != nil {
		return "", err
	}
	index, err := convert.NewIndex()
	known, data, names := map[digest.Digest]string{}, &listData{ID: newID(), Edited: true}, []string{e.Ref}
	if list != nil && err == nil {
		data.ID, data.Was, names = list.ID, list.Digest, list.Names
		if known, err = list.instances(ctx); err == nil {
			index, err = list.index(ctx)
		}
	}
	if err != nil {
		return "", err
	}
	rec, err := e.Edit(index)
	if err != nil {
		return "", err
	}
	v, err := convert.ParseIndex(rec.Index)
	if err == nil {
		data.Documents, err = listDocuments(v, rec.Data)
	}
	if err != nil {
		return "", err
	}
	instances := map[digest.Digest]string{"": data.ID}
	for _, d := range v.Manifests {
		where, err := tx.s.whereIs(d.Digest, rec.Instances, known)
		if err != nil {
			return "", err
		}
		if where != "" {
			instances[d.Digest] = where
		}
	}
	if data.Documents[instancesKey], err = strict.Marshal(instances); err != nil {
		return "", err
	}
	tx.PutImage(ImageRecord{Manifest: rec.Index, ManifestType: v.MediaType, Names: append(names[:len(names):len(names)], rec.Names...), list: data})
	return data.ID, nil
}

// EditList changes or makes a manifest list; see [Tx.EditList].
func (s *Store) EditList(ctx context.Context, e ListEdit) (*Image, error) {
	var id string
	err := s.Change(ctx, "manifest", func(ctx context.Context, tx *Tx) (err error) {
		id, err = tx.EditList(ctx, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.reread(id)
}

// lockList finds the list that is to be changed, nil when it is to be made, and keeps others from changing it until the change has
// ended.
func (tx *Tx) lockList(ctx context.Context, e ListEdit) (*Image, error) {
	var rec *storage.Image
	if e.Create || e.New {
		name, err := NormalizeName(e.Ref)
		if err == nil && strings.Contains(name, "@") {
			err = kimg.Errorf(kimg.ErrInvalid, kimg.Quote(e.Ref), "a name to give has a tag, not a digest")
		}
		if err == nil {
			err = tx.lock(ctx, digest.FromString("kimg-list "+name))
		}
		if err == nil {
			rec, err = tx.s.imageNamed(name)
		}
		switch {
		case err != nil:
			return nil, err
		case e.New && rec != nil:
			return nil, kimg.Errorf(kimg.ErrExists, name, "the name is taken, by %s", rec.ID[:12])
		case e.New:
			return nil, nil
		}
	}
	if rec == nil {
		var err error
		if rec, _, err = tx.s.resolve(ctx, e.Ref); e.Create && kimg.ClassOf(err) == kimg.ErrNotFound {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
	}
	list := tx.s.image(rec)
	switch {
	case !list.IsList():
		return nil, kimg.Errorf(kimg.ErrUnsupported, kimg.Escape(e.Ref, 300), "not a manifest list but one image")
	case list.ReadOnly:
		return nil, kimg.Errorf(kimg.ErrReadOnly, list.label(), "lies in a read-only store")
	}
	err := tx.lock(ctx, listLock(list.ID))
	if err == nil {
		rec, err = tx.s.exactImage(list.ID)
	}
	if err == nil && rec == nil {
		err = kimg.Errorf(kimg.ErrNotFound, list.label(), "somebody has removed it meanwhile")
	}
	if err != nil {
		return nil, err
	}
	return tx.s.image(rec), nil
}

// listLock names the lock that podman and buildah take for changing a list, too.
func listLock(id string) digest.Digest { return digest.NewDigestFromEncoded(digest.Canonical, id) }

// lock takes a lock, unless the change has it, that is given back when the change has ended, taken back or not.
func (tx *Tx) lock(ctx context.Context, d digest.Digest) error {
	if tx.locked[d] != nil {
		return nil
	}
	unlock, err := tx.s.lockDigest(ctx, d)
	if err == nil {
		if tx.locked == nil {
			tx.locked = map[digest.Digest]func(){}
		}
		tx.locked[d] = unlock
	}
	return err
}

// index reads the index of a list for a change. An empty one of podman's has null where there should be a list of none.
func (i *Image) index(ctx context.Context) ([]byte, error) {
	data, _, err := i.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	v, err := listView(data)
	if err == nil && len(v.Manifests) == 0 && v.Format == convert.DockerV2S2 {
		return convert.NewIndex()
	}
	return data, kimg.Wrap(i.label(), err)
}

// whereIs tells where an instance is, as podman writes it; "": nobody knows.
func (s *Store) whereIs(d digest.Digest, said, known map[digest.Digest]string) (string, error) {
	if where := said[d]; isHexID(where) {
		return s.reference(where), nil
	} else if where != "" {
		return where, nil
	}
	if known[d] != "" {
		return known[d], nil
	}
	img, err := s.manifestOwner(d)
	if err != nil || img == nil {
		return "", err
	}
	return s.reference(img.ID), nil
}

// undoEdit brings back a list as it was before it was edited, unless somebody has changed it since.
func (p *imagePut) undoEdit(img *storage.Image) error {
	ours := [2][]byte{p.rec.list.Documents[instancesKey], p.rec.Manifest}
	was := [2][]byte{p.before.Instances, p.before.Manifest}
	var undo [2]bool
	for i, key := range listKeys {
		now, err := p.s.st.ImageBigData(img.ID, key)
		if err != nil {
			return err
		}
		undo[i] = !bytes.Equal(now, was[i])
		if undo[i] && !bytes.Equal(now, ours[i]) {
			return nil
		}
	}
	for i, key := range listKeys {
		if undo[i] {
			if err := p.s.st.SetImageBigData(img.ID, key, was[i], manifest.Digest); err != nil {
				return err
			}
		}
	}
	return p.restoreSigned(img)
}

// listKeys are what changes of a list, in the order in which it is written.
var listKeys = [2]string{instancesKey, storage.ImageDigestBigDataKey}

// lockEdit takes the lock of a list that a killed process was editing; of anything else none.
func (p *imagePut) lockEdit(ctx context.Context) (func(), error) {
	if !p.rec.edited() {
		return func() {}, nil
	}
	return p.s.lockDigest(ctx, listLock(p.rec.ID()))
}
