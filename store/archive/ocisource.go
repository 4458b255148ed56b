package archive

import (
	"context"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/strict"
	"github.com/kimg/kimg/store/layout"
)

// OpenOCI opens the image called name in an oci-archive; name means what it means for layout.OpenOCI. The caller closes
// the source.
func OpenOCI(ctx context.Context, path, name string, o Options) (*Source, error) {
	return open(ctx, path, o, func(s *Source) error { return s.openOCI(name) })
}

func (s *Source) openOCI(name string) error {
	if err := s.tar.checkLayout(); err != nil {
		return err
	}
	index, err := s.tar.read(ispec.ImageIndexFile, maxIndexFile)
	if kimg.ClassOf(err) == kimg.ErrNotFound {
		return kimg.Errorf(kimg.ErrInvalid, "", "not-an-image: there is no %s in the archive", ispec.ImageIndexFile)
	}
	if err != nil {
		return err
	}
	desc, err := layout.Select(index, name)
	if err != nil {
		return err
	}
	return s.openEntry(desc)
}

func (s *Source) openEntry(d ispec.Descriptor) (err error) {
	s.isOCI = true
	s.manifest, err = s.tar.manifest(d)
	return err
}

func (t *tarFile) checkLayout() error {
	version, err := t.read(ispec.ImageLayoutFile, 64<<10)
	if kimg.ClassOf(err) == kimg.ErrNotFound { // some writers leave it out
		return nil
	}
	if err != nil {
		return err
	}
	return layout.CheckVersion(version)
}

// manifest reads the manifest of an entry of the index.
func (t *tarFile) manifest(d ispec.Descriptor) ([]byte, error) {
	if err := strict.Digest(d.Digest.String()); err != nil {
		return nil, err
	}
	m, err := t.findBlob(d.Digest)
	if err == nil {
		err = layout.CheckSize(d, m.size)
	}
	if err != nil {
		return nil, err
	}
	return t.document(m, d.Digest)
}
