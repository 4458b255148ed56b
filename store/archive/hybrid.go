package archive

import (
	"context"
	"maps"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/strict"
	"github.com/kimg/kimg/store/layout"
)

// agree checks an archive that is an image layout and has a manifest.json as well: readers of either must find the same images. Every
// image of manifest.json is one of the layout, by its configuration, and a name that both have means the same one. The layout may have
// more: other platforms, attestations, names that Docker has no place for. Class invalid ("ambiguous") when they do not agree. Of an image
// of the layout that cannot be read only its name could tell, so that nothing is said of it.
func (t *tarFile) agree(ctx context.Context) error {
	list, err := t.read(manifestFile, maxList)
	var data []byte
	if err == nil {
		data, err = t.read(ispec.ImageIndexFile, maxIndexFile)
	}
	if err != nil { // there is one of them at most, or whoever reads it is told
		return nil
	}
	items, err := parseItems(list)
	if err != nil {
		return kimg.Wrap(manifestFile, err)
	}
	images, err := layout.Images(data)
	if err != nil {
		return err
	}
	c := configs{t: t, known: map[digest.Digest]digest.Digest{}, named: map[string]digest.Digest{}}
	called, there, damaged := map[string][]map[digest.Digest]bool{}, map[digest.Digest]bool{}, false
	for _, i := range images {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		image := c.image(i.Descriptor)
		if image == nil {
			damaged = true
			continue
		}
		maps.Copy(there, image)
		for _, tag := range tags(i.Names) {
			called[tag] = append(called[tag], image)
		}
	}
	for _, it := range items {
		config, err := c.item(it)
		if err != nil {
			return kimg.Wrap(manifestFile, err)
		}
		if !damaged && !there[config] {
			return kimg.Errorf(kimg.ErrInvalid, manifestFile, "ambiguous: an image that %s does not have", ispec.ImageIndexFile)
		}
		for _, tag := range tags(it.RepoTags) {
			for _, image := range called[tag] {
				if !image[config] {
					return kimg.Errorf(kimg.ErrInvalid, manifestFile, "ambiguous: in %s another image is called %s", ispec.ImageIndexFile, kimg.Quote(tag))
				}
			}
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
	return nil
}

// configs finds the configurations of images, reading each document once.
type configs struct {
	t     *tarFile
	known map[digest.Digest]digest.Digest // of a manifest -> of its configuration; "": there is none
	named map[string]digest.Digest        // of a member
}

// item returns the digest of the configuration of an image of manifest.json, by its name or else by its bytes.
func (c *configs) item(it item) (digest.Digest, error) {
	d, ok := digestOf(it.Config)
	if !ok {
		d, ok = c.named[it.Config]
	}
	if ok {
		return d, nil
	}
	data, err := c.t.read(it.Config, strict.MaxDocument)
	if err == nil {
		d = digest.FromBytes(data)
		c.named[it.Config] = d
	}
	return d, err
}

// image returns the configurations of an image of the layout: of an index those of all of its images that are there. Nil: it cannot be read,
// and whoever wants it is told.
func (c *configs) image(d ispec.Descriptor) map[digest.Digest]bool {
	manifest, err := c.t.manifest(d)
	if err != nil {
		return nil
	}
	if !convert.IsIndex(manifest, "") {
		v, err := convert.ParseManifest(manifest)
		if err != nil {
			return nil
		}
		return map[digest.Digest]bool{v.Config.Digest: true}
	}
	v, err := convert.ParseIndex(manifest)
	if err != nil {
		return nil
	}
	all := map[digest.Digest]bool{}
	for _, d := range v.Manifests {
		config, again := c.known[d.Digest]
		if m, err := c.t.findBlob(d.Digest); !again && err == nil && convert.IsImage(d) {
			data, err := c.t.document(m, d.Digest)
			if err != nil {
				return nil
			}
			v, err := convert.ParseManifest(data)
			if err != nil {
				return nil
			}
			config = v.Config.Digest
		}
		if c.known[d.Digest] = config; config != "" {
			all[config] = true
		}
	}
	return all
}
