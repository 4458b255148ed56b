package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/containers/image/v5/manifest"
	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/failpoint"
)

// imageBefore is what an image put replaces.
type imageBefore struct {
	Existed  bool              `json:"existed"`
	Names    []string          `json:"names,omitempty"`    // the image had before
	Owners   map[string]string `json:"owners,omitempty"`   // name -> id of the image that had it before
	Manifest []byte            `json:"manifest,omitempty"` // the image had before, when it is replaced

	Instances []byte        `json:"instances,omitempty"` // of a list that is edited
	Signed    *signedBefore `json:"signed,omitempty"`    // nil: its signatures stay as they are
}

// imagePut is one image record on its way into the store.
type imagePut struct {
	s      *Store
	rec    ImageRecord
	before imageBefore
	names  []string // normalised
	ready  bool
}

// prepare looks up what the put will replace.
func (p *imagePut) prepare() error {
	if err := p.rec.validate(); err != nil {
		return err
	}
	names, err := NormalizeNames(p.rec.Names)
	if err != nil {
		return err
	}
	p.names = names
	p.before = imageBefore{Owners: map[string]string{}}
	old, err := p.s.exactImage(p.rec.ID())
	if err != nil {
		return err
	}
	if old != nil {
		p.before.Existed, p.before.Names = true, old.Names
		if p.before.Signed, err = p.signedBefore(old); err != nil {
			return err
		}
		if p.replacesManifest(old) {
			p.before.Manifest, _ = p.s.st.ImageBigData(old.ID, storage.ImageDigestBigDataKey) // missing: nothing to restore
		}
		if p.rec.edited() {
			p.before.Instances, _ = p.s.st.ImageBigData(old.ID, instancesKey)
		}
	}
	for _, name := range p.names {
		owner, err := p.s.imageNamed(name)
		if err != nil {
			return err
		}
		if owner != nil {
			p.before.Owners[name] = owner.ID
		}
	}
	p.ready = true
	return nil
}

// replacesManifest tells whether the new manifest takes the place of the image's first one: when every name the image
// has is among the given ones, nobody is left who asked for the first.
func (p *imagePut) replacesManifest(old *storage.Image) bool {
	if p.rec.edited() {
		return true
	}
	for _, n := range old.Names {
		if !slices.Contains(p.names, n) {
			return false
		}
	}
	return len(p.names) > 0
}

func (p *imagePut) intentStep() (*intentStep, error) {
	if err := p.prepare(); err != nil {
		return nil, err
	}
	return &intentStep{Image: &intentImage{
		Config: p.rec.Config, Manifest: p.rec.Manifest, ManifestType: p.rec.ManifestType, TopLayer: p.rec.TopLayer,
		Names: p.names, Created: p.rec.Created, Before: p.before, List: p.rec.list, Signatures: p.rec.Signatures,
		About: p.rec.About, Data: p.rec.Data,
	}}, nil
}

// do records the image. The names come last, so that a name never leads to half a record.
func (p *imagePut) do(context.Context) error {
	if !p.ready {
		if err := p.prepare(); err != nil {
			return err
		}
	}
	if err := failpoint.Here("image.put.begin"); err != nil {
		return err
	}
	for try := 0; ; try++ {
		err := p.record()
		if err == nil {
			return failpoint.Here("image.put.end")
		}
		// Another tool may have removed the same image between two of our steps. Then it is put anew.
		if img, lerr := p.s.exactImage(p.rec.ID()); try == maxRetries || lerr != nil || img != nil || !isUnknown(err) {
			return err
		}
		if p.rec.TopLayer != "" && !p.s.layerExists(p.rec.TopLayer) {
			return storage.ErrLayerUnknown
		}
	}
}

func isUnknown(err error) bool {
	return errors.Is(err, storage.ErrImageUnknown) || errors.Is(err, storage.ErrNotAnImage) || errors.Is(err, storage.ErrLayerUnknown)
}

func (p *imagePut) record() error {
	err := error(storage.ErrDuplicateID)
	if !p.rec.edited() || p.rec.list.Was == "" {
		err = p.create()
	}
	named := false // already: then nothing has to be written
	if errors.Is(err, storage.ErrDuplicateID) {
		err = p.amend()
		named = !slices.ContainsFunc(p.names, func(name string) bool { return p.before.Owners[name] != p.rec.ID() })
	}
	if err == nil && len(p.names) > 0 && !named {
		err = p.s.st.AddNames(p.rec.ID(), p.names)
	}
	return err
}

// digest is the manifest's.
func (p *imagePut) digest() (digest.Digest, error) {
	d, err := manifest.Digest(p.rec.Manifest)
	if err != nil {
		err = kimg.Errorf(kimg.ErrInvalid, "image "+p.rec.ID(), "manifest: %w", err)
	}
	return d, err
}

func (p *imagePut) create() error {
	md, err := p.digest()
	if err != nil {
		return err
	}
	o := storage.ImageOptions{CreationDate: p.rec.Created, Metadata: "{}"}
	if p.rec.list != nil && !p.rec.edited() {
		o.Metadata = listMetadata
	}
	signatures, metadata, err := p.rec.signed(signedBefore{Metadata: o.Metadata, Was: md}, md)
	if err != nil {
		return err
	}
	o.Metadata = metadata
	for _, documents := range []map[string][]byte{p.rec.documents(), signatures} {
		for key, data := range documents {
			o.BigData = append(o.BigData, storage.ImageBigDataOption{Key: key, Data: data, Digest: cmp.Or(namedBy(key), digest.FromBytes(data))})
		}
	}
	slices.SortFunc(o.BigData, func(a, b storage.ImageBigDataOption) int { return strings.Compare(a.Key, b.Key) })
	if !p.rec.edited() {
		o.Digest = md
		o.BigData = append(o.BigData, storage.ImageBigDataOption{Key: manifestKey(md), Data: p.rec.Manifest, Digest: md})
	}
	o.BigData = append(o.BigData, storage.ImageBigDataOption{Key: storage.ImageDigestBigDataKey, Data: p.rec.Manifest, Digest: md})
	_, err = p.s.st.CreateImage(p.rec.ID(), nil, p.rec.TopLayer, "", &o)
	return err
}

// amend adds what is new to an image the store has already.
func (p *imagePut) amend() error {
	id := p.rec.ID()
	old, err := p.s.st.Image(id)
	if err != nil {
		return err
	}
	md, err := p.digest()
	if err != nil {
		return err
	}
	set := func(key string, data []byte) error {
		return p.s.st.SetImageBigData(id, key, data, func(data []byte) (digest.Digest, error) {
			if d := namedBy(key); d != "" {
				return d, nil
			}
			return manifest.Digest(data)
		})
	}
	current, ok := old.BigDataDigests[storage.ImageDigestBigDataKey]
	if p.rec.edited() && current != p.rec.list.Was && current != md {
		return kimg.Errorf(kimg.ErrBusy, "list "+id, "another tool has changed it meanwhile")
	}
	// A record another tool left half-written is completed on the way.
	for key, data := range p.rec.documents() {
		if !slices.Contains(old.BigDataNames, key) || key == instancesKey || key == aboutKey {
			if err := set(key, data); err != nil {
				return err
			}
		}
	}
	if !p.rec.edited() && !slices.Contains(old.BigDataNames, manifestKey(md)) {
		if err := set(manifestKey(md), p.rec.Manifest); err != nil {
			return err
		}
	}
	replaces := !ok || current != md && p.replacesManifest(old)
	if replaces {
		current = md
	}
	if err := p.sign(old, current, set); err != nil {
		return err
	}
	if replaces {
		return set(storage.ImageDigestBigDataKey, p.rec.Manifest)
	}
	return nil
}

// undo brings back what was before. It may run after any part of do, more than once, and in another process.
func (p *imagePut) undo(context.Context) error {
	if !p.ready {
		return nil
	}
	id := p.rec.ID()
	img, err := p.s.exactImage(id)
	if err != nil || img == nil {
		return err
	}
	var errs []error
	for _, name := range p.names {
		owner, had := p.before.Owners[name]
		if !slices.Contains(img.Names, name) || had && owner == id {
			continue // not moved, or moved on by somebody else
		}
		errs = append(errs, p.giveBack(name, owner))
	}
	if p.before.Existed && !p.rec.edited() {
		errs = append(errs, p.restoreSigned(img))
	}
	switch {
	case !p.before.Existed:
		errs = append(errs, p.s.forgetImage(id))
	case p.rec.edited():
		errs = append(errs, p.undoEdit(img))
	case len(p.before.Manifest) > 0:
		errs = append(errs, p.restoreManifest(id))
	}
	return errors.Join(errs...)
}

// giveBack returns a name to the image that had it, or takes it away when there is none any more.
func (p *imagePut) giveBack(name, owner string) error {
	if owner != "" {
		img, err := p.s.exactImage(owner)
		if err != nil {
			return err
		}
		if img != nil {
			return p.s.st.AddNames(owner, []string{name})
		}
	}
	return p.s.st.RemoveNames(p.rec.ID(), []string{name})
}

func (p *imagePut) restoreManifest(id string) error {
	current, err := p.s.st.ImageBigData(id, storage.ImageDigestBigDataKey)
	if err == nil && bytes.Equal(current, p.before.Manifest) {
		return nil
	}
	return p.s.st.SetImageBigData(id, storage.ImageDigestBigDataKey, p.before.Manifest, manifest.Digest)
}
