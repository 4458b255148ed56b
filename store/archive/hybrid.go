package archive

import (
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/strict"
	"github.com/kimg/kimg/store/layout"
)

// agree checks an archive that is an image layout and has a manifest.json as well: readers of either must find the same images. Every
// image of manifest.json is one of the layout, by its configuration, and a name that both have means the same one. The layout may have
// more: other platforms, attestations, names that Docker has no place for. Class invalid ("ambiguous") when they do not agree.
func (t *tarFile) agree() error {
	list, err := t.read(manifestFile, maxList)
	var index []byte
	if err == nil {
		index, err = t.read(ispec.ImageIndexFile, maxIndexFile)
	}
	if err != nil { // there is one of them at most, or whoever reads it is told
		return nil
	}
	items, err := parseItems(list)
	if err != nil {
		return kimg.Wrap(manifestFile, err)
	}
	numbers, names, err := layout.Images(index)
	if err != nil {
		return err
	}
	c := configs{t: t, known: map[digest.Digest]digest.Digest{}}
	images := make([][]digest.Digest, len(numbers)) // the configurations of each
	for i, n := range numbers {
		images[i] = c.image(n)
	}
	for _, it := range items {
		config, err := t.configDigest(it)
		if err != nil {
			return kimg.Wrap(manifestFile, err)
		}
		if !c.damaged && !slices.ContainsFunc(images, func(all []digest.Digest) bool { return slices.Contains(all, config) }) {
			return kimg.Errorf(kimg.ErrInvalid, manifestFile, "ambiguous: an image that %s does not have", ispec.ImageIndexFile)
		}
		for _, tag := range tags(it.RepoTags) {
			for i, of := range names {
				if slices.Contains(tags(of), tag) && !c.damaged && !slices.Contains(images[i], config) {
					return kimg.Errorf(kimg.ErrInvalid, manifestFile, "ambiguous: in %s another image is called %s", ispec.ImageIndexFile, kimg.Quote(tag))
				}
			}
		}
	}
	return nil
}

// configDigest is the digest of an image's configuration, by its name or else by its bytes.
func (t *tarFile) configDigest(it item) (digest.Digest, error) {
	if d, ok := digestOf(it.Config); ok {
		return d, nil
	}
	data, err := t.read(it.Config, strict.MaxDocument)
	return digest.FromBytes(data), err
}

// configs finds the configurations of the images of a layout, reading each manifest once.
type configs struct {
	t       *tarFile
	known   map[digest.Digest]digest.Digest // of a manifest -> of its configuration
	damaged bool                            // some image cannot be read: whoever wants it is told
}

// image returns the configurations of the image with a number: of an index those of all of its images that are there.
func (c *configs) image(n int) (all []digest.Digest) {
	s := newSource(c.t)
	if err := s.openOCI("@" + strconv.Itoa(n)); err != nil {
		c.damaged = true
		return nil
	}
	if !convert.IsIndex(s.manifest, "") {
		return []digest.Digest{c.config(s.manifest)}
	}
	v, err := convert.ParseIndex(s.manifest)
	c.damaged = c.damaged || err != nil
	for _, d := range v.Manifests {
		config, again := c.known[d.Digest]
		if !again {
			if m, err := c.t.findBlob(d.Digest); err == nil && convert.IsImage(d) {
				data, err := c.t.document(m, d.Digest)
				c.damaged = c.damaged || err != nil
				config = c.config(data)
			}
			c.known[d.Digest] = config
		}
		all = append(all, config)
	}
	return all
}

func (c *configs) config(manifest []byte) digest.Digest {
	v, err := convert.ParseManifest(manifest)
	c.damaged = c.damaged || err != nil
	return v.Config.Digest
}
