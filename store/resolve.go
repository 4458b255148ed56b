package store

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
)

// Resolve finds the one image ref means: an ID, a name (without a registry: first below localhost/, then the only image
// of any registry whose name ends in it), name@digest, sha256:ID, or the beginning of an ID. Several candidates are
// class invalid and named. A manifest list gives its instance for the platform p, or for this machine when p is nil.
// When p is given, an image that [convert.PlatformRank] does not let serve it is class unsupported.
func (s *Store) Resolve(ctx context.Context, ref string, p *ispec.Platform) (*Image, error) {
	rec, _, err := s.resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	img := s.image(rec)
	if img.IsList() {
		return s.instance(ctx, img, p)
	}
	return img, img.fits(ctx, p)
}

// resolve finds the record ref means and, when ref is a name, the name by which it was found.
func (s *Store) resolve(ctx context.Context, ref string) (rec *storage.Image, name string, err error) {
	if err := check(ctx); err != nil {
		return nil, "", err
	}
	if ref == "" {
		return nil, "", kimg.Errorf(kimg.ErrInvalid, "image", "an image needs a name or an ID")
	}
	if len(ref) > maxReference+len("@sha256:")+64 {
		return nil, "", kimg.Errorf(kimg.ErrLimit, kimg.Quote(ref), "an image name has at most %d characters", maxReference)
	}
	switch id, isID := strings.CutPrefix(ref, "sha256:"); {
	case isID:
		rec, err = s.byDigestText(id)
	case isHexID(ref):
		rec, err = s.exactImage(ref)
	default:
		rec, name, err = s.byName(ref)
		if err == nil && rec == nil && isHex(ref) {
			rec, err = s.byPrefix(ref)
		}
	}
	if err == nil && rec == nil {
		err = kimg.Errorf(kimg.ErrNotFound, kimg.Escape(ref, maxReference), "no such image in this store")
	}
	return rec, name, err
}

// byDigestText finds an image by the hex part of sha256:…: an image ID, or the digest of a manifest.
func (s *Store) byDigestText(hex string) (*storage.Image, error) {
	if !isHexID(hex) {
		if isHex(hex) && len(hex) < 64 {
			return s.byPrefix(hex)
		}
		return nil, kimg.Errorf(kimg.ErrInvalid, kimg.Quote("sha256:"+hex), "not a digest")
	}
	img, err := s.exactImage(hex)
	if err != nil || img != nil {
		return img, err
	}
	images, err := s.byDigest(digest.NewDigestFromEncoded(digest.SHA256, hex))
	return oneOf("sha256:"+hex, images, err)
}

func (s *Store) byDigest(d digest.Digest) ([]*storage.Image, error) {
	images, err := s.st.ImagesByDigest(d)
	if err != nil && !errors.Is(err, storage.ErrImageUnknown) {
		return nil, wrap(d.String(), err)
	}
	return images, nil
}

func (s *Store) byPrefix(prefix string) (*storage.Image, error) {
	all, err := s.st.Images()
	if err != nil {
		return nil, wrap("images", err)
	}
	var found []*storage.Image
	for i := range all {
		if strings.HasPrefix(all[i].ID, prefix) {
			found = append(found, &all[i])
		}
	}
	return oneOf(prefix, found, nil)
}

// byName finds an image by a full or short name.
func (s *Store) byName(ref string) (*storage.Image, string, error) {
	// Other tools may have stored a name that is no full reference.
	if img, err := s.imageNamed(ref); err != nil || img != nil {
		return img, ref, err
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, "", kimg.Errorf(kimg.ErrInvalid, kimg.Quote(ref), "neither an image name nor an ID: %w", err)
	}
	if digested, ok := named.(reference.Digested); ok {
		img, err := s.byNameAndDigest(ref, named, digested.Digest())
		return img, "", err
	}
	if qualified(ref) {
		full := reference.TagNameOnly(named).String()
		img, err := s.imageNamed(full)
		return img, full, err
	}
	local, err := NormalizeName(ref)
	if err != nil {
		return nil, "", err
	}
	if img, err := s.imageNamed(local); err != nil || img != nil {
		return img, local, err
	}
	return s.byShortName(ref, strings.TrimPrefix(local, "localhost/"))
}

// byShortName finds the image whose name ends in short, which has a tag, after a registry and any path.
func (s *Store) byShortName(ref, short string) (*storage.Image, string, error) {
	all, err := s.st.Images()
	if err != nil {
		return nil, "", wrap("images", err)
	}
	var found []*storage.Image
	var name string
	for i := range all {
		for _, n := range all[i].Names {
			if strings.HasSuffix(n, "/"+short) {
				found, name = append(found, &all[i]), n
				break
			}
		}
	}
	img, err := oneOf(ref, found, nil)
	return img, name, err
}

// byNameAndDigest finds the image that has a manifest of this digest and a name in this repository.
func (s *Store) byNameAndDigest(ref string, named reference.Named, d digest.Digest) (*storage.Image, error) {
	images, err := s.byDigest(d)
	if err != nil {
		return nil, err
	}
	repository, short := named.Name(), "/"+strings.TrimPrefix(strings.TrimPrefix(named.Name(), "docker.io/library/"), "docker.io/")
	var exact, loose []*storage.Image
	for _, img := range images {
		for _, n := range slices.Concat(img.Names, img.NamesHistory) {
			other, err := reference.ParseNormalizedNamed(n)
			if err != nil {
				continue
			}
			if other.Name() == repository {
				exact = append(exact, img)
				break
			}
			if !qualified(ref) && strings.HasSuffix(other.Name(), short) {
				loose = append(loose, img)
				break
			}
		}
	}
	if len(exact) > 0 {
		loose = exact
	}
	return oneOf(ref, loose, nil)
}

// oneOf refuses to choose between several images.
func oneOf(ref string, found []*storage.Image, err error) (*storage.Image, error) {
	if err != nil || len(found) == 0 {
		return nil, err
	}
	slices.SortFunc(found, func(a, b *storage.Image) int { return cmp.Compare(a.ID, b.ID) })
	found = slices.CompactFunc(found, func(a, b *storage.Image) bool { return a.ID == b.ID })
	if len(found) == 1 {
		return found[0], nil
	}
	const most = 5
	var names []string
	for i, img := range found {
		if i == most {
			names = append(names, "…")
			break
		}
		name := img.ID[:12]
		if len(img.Names) > 0 {
			name = kimg.Escape(img.Names[0], 100)
		}
		names = append(names, name)
	}
	return nil, kimg.Errorf(kimg.ErrInvalid, kimg.Quote(ref), "means several images: %s", strings.Join(names, ", "))
}

// exactImage finds an image by its full ID, nil when there is none. The library would also take a name or a prefix.
func (s *Store) exactImage(id string) (*storage.Image, error) {
	return s.imageIf(id, func(img *storage.Image) bool { return img.ID == id })
}

// imageNamed finds the image that has a name, nil when there is none.
func (s *Store) imageNamed(name string) (*storage.Image, error) {
	return s.imageIf(name, func(img *storage.Image) bool { return slices.Contains(img.Names, name) })
}

func (s *Store) imageIf(key string, right func(*storage.Image) bool) (*storage.Image, error) {
	img, err := s.st.Image(key)
	switch {
	case errors.Is(err, storage.ErrImageUnknown) || err == nil && !right(img):
		return nil, nil
	case err != nil:
		return nil, wrap("image "+key, err)
	}
	return img, nil
}
