package archive

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/containers/image/v5/docker/reference"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/staging"
	"github.com/kimg/kimg/internal/strict"
)

// CreateDocker prepares to write a docker-archive with one image under any number of name:tag. It takes a schema 2
// manifest whose layers are not compressed; anything else is class unsupported or invalid at Commit. Something at path
// already is class exists, unless it is an empty file. The caller closes the destination.
func CreateDocker(ctx context.Context, path string, names []string, o Options) (*Destination, error) {
	f := dockerForm{}
	var err error
	for _, name := range names {
		var tag reference.NamedTagged
		if tag, err = parseTag(name); err != nil {
			return nil, kimg.Wrap(path, err)
		}
		if !slices.ContainsFunc(f.tags, func(t reference.NamedTagged) bool { return t.String() == tag.String() }) {
			f.tags = append(f.tags, tag)
		}
	}
	d, err := create(ctx, path, f, o)
	return d, kimg.Wrap(path, err)
}

type dockerForm struct{ tags []reference.NamedTagged }

// write puts the two lists first, so that a reader of the stream knows what follows.
func (f dockerForm) write(w *tarWriter, area *staging.Area, manifest []byte, _ string) error {
	view, err := convert.ParseManifest(manifest)
	if err != nil {
		return err
	}
	if view.Format != convert.DockerV2S2 {
		return kimg.Errorf(kimg.ErrUnsupported, "", "media-type: a docker-archive holds images in format %s only", convert.DockerV2S2)
	}
	config, err := readStaged(area, view.Config.Digest)
	if err != nil {
		return err
	}
	if err := checkLayers(view.Layers, config, area); err != nil {
		return err
	}
	old, err := legacyImages(view.Layers, config)
	if err != nil {
		return err
	}
	it := item{Config: view.Config.Digest.Encoded() + ".json", RepoTags: []string{}, Layers: []string{}}
	repos := repositories{}
	for _, tag := range f.tags {
		it.RepoTags = append(it.RepoTags, tag.String())
		if len(old) > 0 {
			repos.add(tag, old[len(old)-1].id)
		}
	}
	for _, l := range view.Layers {
		it.Layers = append(it.Layers, layerFile(l.Digest))
	}
	list, err := strict.Marshal([]item{it})
	if err != nil {
		return err
	}
	oldList, err := strict.Marshal(repos)
	if err != nil {
		return err
	}
	w.bytes(manifestFile, list)
	w.bytes(repositoriesFile, oldList)
	w.bytes(it.Config, config)
	for i, l := range view.Layers {
		if !slices.Contains(it.Layers[:i], it.Layers[i]) { // a layer may come twice
			w.file(it.Layers[i], area.Path(l.Digest), l.Size)
		}
	}
	for _, img := range old {
		w.link(img.id+"/"+legacyLayer, "../"+layerFile(img.layer))
		w.bytes(img.id+"/"+legacyVersion, []byte("1.0"))
		w.bytes(img.id+"/"+legacyJSON, img.json)
	}
	return w.err
}

func layerFile(d digest.Digest) string { return d.Encoded() + ".tar" }

// readStaged returns the whole of a staged document.
func readStaged(area *staging.Area, d digest.Digest) ([]byte, error) {
	r, size, err := area.Open(d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if err := strict.Size(d.String(), size, strict.MaxDocument); err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// checkLayers makes sure that every layer is there, and the plain tar its diff ID names.
func checkLayers(layers []convert.Layer, config []byte, area *staging.Area) error {
	diffIDs, err := parseDiffIDs(config)
	if err != nil {
		return err
	}
	if len(diffIDs) != len(layers) {
		return kimg.Errorf(kimg.ErrInvalid, "config", "count: %d diff IDs and %d layers", len(diffIDs), len(layers))
	}
	for i, l := range layers {
		size, ok := area.Size(l.Digest)
		switch {
		case !ok:
			return kimg.Errorf(kimg.ErrNotFound, l.Digest.String(), "blob-missing: it was not put")
		case size != l.Size:
			return kimg.Errorf(kimg.ErrIntegrity, l.Digest.String(), "size: %d bytes, the manifest says %d", size, l.Size)
		case l.Digest != diffIDs[i]:
			return kimg.Errorf(kimg.ErrInvalid, fmt.Sprintf("layers[%d]", i), "diff-id: a layer of a docker-archive is a plain tar, named by its diff ID")
		}
	}
	return nil
}

// legacyImage is one layer as Docker before 1.10 wants it: an image on its parent.
type legacyImage struct {
	id    string
	layer digest.Digest
	json  []byte
}

// legacyImages makes the images for old readers, base first. Their ids are digests of all they are made from, so equal
// layers on equal bases have equal ids and no image is its own parent. The top one carries the configuration.
func legacyImages(layers []convert.Layer, config []byte) ([]legacyImage, error) {
	var top map[string]json.RawMessage
	if err := strict.Unmarshal(config, &top); err != nil {
		return nil, kimg.Wrap("config", err)
	}
	var all []legacyImage
	var chainID digest.Digest
	for i, l := range layers {
		doc := map[string]any{}
		if i > 0 {
			doc["parent"] = all[i-1].id
			chainID = digest.FromString(chainID.String() + " " + l.Digest.String())
		} else {
			chainID = l.Digest
		}
		if i == len(layers)-1 {
			for _, name := range []string{"architecture", "config", "container", "container_config", "created", "docker_version", "os"} {
				if value, ok := top[name]; ok {
					doc[name] = value
				}
			}
		}
		doc["layer_id"] = chainID
		data, err := strict.Marshal(doc)
		if err != nil {
			return nil, err
		}
		delete(doc, "layer_id")
		id := digest.FromBytes(data).Encoded()
		doc["id"] = id
		if data, err = strict.Marshal(doc); err != nil {
			return nil, err
		}
		all = append(all, legacyImage{id, l.Digest, data})
	}
	return all, nil
}
