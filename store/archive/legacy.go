package archive

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/containers/image/v5/docker/reference"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
)

// Files of an archive from before Docker 1.10 (Docker image specification, version 1.0): repositories names images, and
// each image, which is one layer on its parent, has a directory called by its id.
const (
	repositoriesFile = "repositories"
	legacyVersion    = "VERSION"
	legacyJSON       = "json"
	legacyLayer      = "layer.tar"
)

// repositories is name → tag → id.
type repositories map[string]map[string]string

// legacyTag is one name:tag of repositories.
type legacyTag struct{ text, id string }

func parseRepositories(data []byte) ([]legacyTag, error) {
	var r repositories
	if err := strict.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	var all []legacyTag
	for _, name := range slices.Sorted(maps.Keys(r)) {
		for _, tag := range slices.Sorted(maps.Keys(r[name])) {
			id := r[name][tag]
			if err := v1ID(id); err != nil {
				return nil, err
			}
			all = append(all, legacyTag{name + ":" + tag, id})
		}
	}
	return all, nil
}

func v1ID(id string) error {
	if strict.ID(id) != nil {
		return kimg.Errorf(kimg.ErrInvalid, "", "v1-id: %s is not 64 lower-case hexadecimal digits", kimg.Quote(id))
	}
	return nil
}

// openLegacy finds an image by repositories.
func (s *Source) openLegacy(ctx context.Context, ref string) error {
	data, err := s.tar.read(repositoriesFile, maxList)
	if kimg.ClassOf(err) == kimg.ErrNotFound {
		return kimg.Errorf(kimg.ErrInvalid, "", "not-an-image: neither %s nor %s is in the archive", manifestFile, repositoriesFile)
	}
	if err != nil {
		return err
	}
	all, err := parseRepositories(data)
	if err != nil {
		return kimg.Wrap(repositoriesFile, err)
	}
	ids, tags := byID(all)
	n, err := choose(tags, ref)
	if err != nil {
		return err
	}
	if ref == "" || strings.HasPrefix(ref, "@") {
		ref = tags[n][0]
	}
	return s.openChain(ctx, ref, ids[n])
}

// openChain presents an image, which is called ref, as schema 1.
func (s *Source) openChain(ctx context.Context, ref, id string) error {
	chain, err := s.chain(id)
	if err != nil {
		return err
	}
	return s.schema1(ctx, ref, chain)
}

// image is one image of the chain.
type image struct {
	raw          []byte // its json file
	layer        member
	architecture string
}

// chain reads an image and what it lies on, top first.
func (s *Source) chain(id string) ([]image, error) {
	var chain []image
	seen := map[string]bool{}
	for total := 0; id != ""; {
		if seen[id] {
			return nil, kimg.Errorf(kimg.ErrInvalid, id, "duplicate-id: an image is its own parent")
		}
		if len(chain) == maxChain {
			return nil, kimg.Errorf(kimg.ErrLimit, id, "more than %d images on one another", maxChain)
		}
		seen[id] = true
		img, parent, err := s.image(id)
		if err != nil {
			return nil, kimg.Wrap(id, err)
		}
		if total += len(img.raw); total > strict.MaxDocument { // they become one manifest
			return nil, strict.Size("the json files of the image", int64(total), strict.MaxDocument)
		}
		chain, id = append(chain, img), parent
	}
	return chain, nil
}

func (s *Source) image(id string) (img image, parent string, err error) {
	version, err := s.tar.read(id+"/"+legacyVersion, 64)
	if err == nil && strings.TrimSpace(string(version)) != "1.0" {
		return img, "", kimg.Errorf(kimg.ErrUnsupported, legacyVersion, "version %s", kimg.Quote(string(version)))
	}
	if err != nil && kimg.ClassOf(err) != kimg.ErrNotFound {
		return img, "", err
	}
	if img.raw, err = s.tar.read(id+"/"+legacyJSON, strict.MaxDocument); err != nil {
		return img, "", err
	}
	var doc struct {
		ID           string `json:"id"`
		Parent       string `json:"parent"`
		Architecture string `json:"architecture"`
	}
	if err := strict.UnmarshalExact(img.raw, &doc); err != nil {
		return img, "", err
	}
	if doc.ID != id {
		return img, "", kimg.Errorf(kimg.ErrInvalid, "", "v1-id: the json file is of %s", kimg.Quote(doc.ID))
	}
	if doc.Parent != "" {
		if err := v1ID(doc.Parent); err != nil {
			return img, "", err
		}
	}
	img.architecture = doc.Architecture
	if img.layer, err = s.tar.find(id + "/" + legacyLayer); err != nil {
		return img, "", layerMissing(err)
	}
	return img, doc.Parent, nil
}

// schema1 makes the manifest. Every Docker that wrote such archives ran on amd64 unless the image says otherwise.
func (s *Source) schema1(ctx context.Context, ref string, chain []image) error {
	m := docker.V1Manifest{SchemaVersion: 1, Architecture: chain[0].architecture, FSLayers: make([]docker.V1FSLayer, len(chain))}
	if tagged, err := parseTag(ref); err == nil {
		m.Name, m.Tag = reference.Path(tagged), tagged.Tag()
	}
	if m.Architecture == "" {
		m.Architecture = "amd64"
	}
	err := s.hash(ctx, len(chain), func(i int) (member, *digest.Digest) { return chain[i].layer, &m.FSLayers[i].BlobSum })
	if err != nil {
		return err
	}
	for i, img := range chain {
		s.blobs[m.FSLayers[i].BlobSum] = img.layer
		m.History = append(m.History, docker.V1History{V1Compatibility: string(img.raw)})
	}
	if s.manifest, err = strict.Marshal(m); err != nil {
		return err
	}
	return strict.Size("manifest", int64(len(s.manifest)), strict.MaxDocument)
}
