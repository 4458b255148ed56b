package archive

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/containers/image/v5/docker/reference"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/strict"
	"github.com/kimg/kimg/store/layout"
)

// Form is what readers a written archive is for.
type Form int

// The forms. A Hybrid is an OCI image layout whose manifest.json names the same blobs, so that every reader of either finds its images.
const (
	Hybrid Form = iota
	OCI
	Docker
)

// containerdName is the annotation in which containerd, Docker and podman look for the whole name of an image.
const containerdName = "io.containerd.image.name"

// Bundle is what an archive of many images holds. Blobs are written when their turn comes: nothing is staged.
type Bundle struct {
	Images []BundleImage
	Blobs  map[digest.Digest]Blob // everything that images name, manifests included
}

// Blob is a blob of a bundle.
type Blob struct {
	Size  int64
	Write func(ctx context.Context, w io.Writer) error // as many bytes as Size says, and verified when it returns nil
}

// Bytes is a blob that is in memory.
func Bytes(data []byte) Blob {
	return Blob{int64(len(data)), func(_ context.Context, w io.Writer) error {
		_, err := w.Write(data)
		return err
	}}
}

// BundleImage is one image, or one index, of a bundle.
type BundleImage struct {
	Names  []string         // normalised; none: it has no name
	Root   ispec.Descriptor // of the manifest or index
	Docker *DockerImage     // nil: it cannot be in manifest.json
}

// DockerImage is an image as manifest.json names it.
type DockerImage struct {
	Config []byte
	Layers []digest.Digest // of blobs, base first
}

// Write writes the archive. The same bundle gives the same bytes: members are in the order of their names, and have no times or
// owners. What went wrong with a blob names it; then what was written is of no use.
func (b Bundle) Write(ctx context.Context, w io.Writer, f Form) error {
	m := members{}
	var err error
	if f == Docker {
		err = b.docker(m)
	} else {
		err = b.oci(m, f == Hybrid)
	}
	if err != nil {
		return err
	}
	t := &tarWriter{ctx: ctx, f: w}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		switch one := m[name]; {
		case strings.HasSuffix(name, "/"):
			t.dir(strings.TrimSuffix(name, "/"))
		case one.link != "":
			t.link(name, one.link)
		default:
			t.stream(name, one.Blob)
		}
	}
	return t.end()
}

// members are those of an archive, by their names; directories end with a slash.
type members map[string]bundled

type bundled struct {
	Blob
	link string // of a symbolic link
}

func (m members) json(name string, v any) error {
	data, err := strict.Marshal(v)
	m[name] = bundled{Blob: Bytes(data)}
	return err
}

// oci makes an image layout, and manifest.json when it is a hybrid.
func (b Bundle) oci(m members, hybrid bool) error {
	index := ispec.Index{MediaType: ispec.MediaTypeImageIndex, Manifests: []ispec.Descriptor{}}
	index.SchemaVersion = 2
	items := []item{}
	for _, img := range b.Images {
		root := ispec.Descriptor{MediaType: img.Root.MediaType, Digest: img.Root.Digest, Size: img.Root.Size}
		if len(img.Names) == 0 {
			index.Manifests = append(index.Manifests, root)
		}
		for _, name := range img.Names {
			root.Annotations = map[string]string{containerdName: name, ispec.AnnotationRefName: name}
			index.Manifests = append(index.Manifests, root)
		}
		if img.Docker != nil {
			it := item{Config: layout.BlobPath(digest.FromBytes(img.Docker.Config)), RepoTags: tags(img.Names), Layers: []string{}}
			for _, d := range img.Docker.Layers {
				it.Layers = append(it.Layers, layout.BlobPath(d))
			}
			items = append(items, it)
		}
	}
	m[ispec.ImageBlobsDir+"/"] = bundled{}
	for d, blob := range b.Blobs {
		m[ispec.ImageBlobsDir+"/"+d.Algorithm().String()+"/"] = bundled{}
		m[layout.BlobPath(d)] = bundled{Blob: blob}
	}
	m[ispec.ImageLayoutFile] = bundled{Blob: Bytes(layout.Version())}
	if err := m.json(ispec.ImageIndexFile, index); err != nil || !hybrid {
		return err
	}
	return m.json(manifestFile, items)
}

// tags are the names that Docker has a place for.
func tags(names []string) []string {
	all := []string{}
	for _, name := range names {
		if tag, err := parseTag(name); err == nil {
			all = append(all, tag.String())
		}
	}
	return all
}

// docker makes a docker-archive that readers from before Docker 1.10 understand as well.
func (b Bundle) docker(m members) error {
	items, repos := []item{}, repositories{}
	for _, img := range b.Images {
		if img.Docker == nil {
			return kimg.Errorf(kimg.ErrInternal, img.Root.Digest.String(), "an image that cannot be in a docker-archive")
		}
		it := item{Config: digest.FromBytes(img.Docker.Config).Encoded() + ".json", RepoTags: tags(img.Names), Layers: []string{}}
		m[it.Config] = bundled{Blob: Bytes(img.Docker.Config)}
		layers := make([]convert.Layer, len(img.Docker.Layers))
		for i, d := range img.Docker.Layers {
			layers[i].Digest = d
			it.Layers = append(it.Layers, layerFile(d))
			m[it.Layers[i]] = bundled{Blob: b.Blobs[d]}
		}
		items = append(items, it)
		old, err := legacyImages(layers, img.Docker.Config)
		if err != nil {
			return err
		}
		for _, one := range old {
			m[one.id+"/"] = bundled{}
			m[one.id+"/"+legacyLayer] = bundled{link: "../" + layerFile(one.layer)}
			m[one.id+"/"+legacyVersion] = bundled{Blob: Bytes([]byte("1.0"))}
			m[one.id+"/"+legacyJSON] = bundled{Blob: Bytes(one.json)}
		}
		for _, name := range it.RepoTags {
			if tag, err := parseTag(name); err == nil && len(old) > 0 {
				repos.add(tag, old[len(old)-1].id)
			}
		}
	}
	if err := m.json(repositoriesFile, repos); err != nil {
		return err
	}
	return m.json(manifestFile, items)
}

// add lets a tag mean an image.
func (r repositories) add(tag reference.NamedTagged, id string) {
	if r[tag.Name()] == nil {
		r[tag.Name()] = map[string]string{}
	}
	r[tag.Name()][tag.Tag()] = id
}
