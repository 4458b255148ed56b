package archive

import (
	"context"
	"errors"
	"io"
	"path"
	"runtime"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/internal/strict"
)

// manifestFile lists the images of a docker-archive since Docker 1.10.
const manifestFile = "manifest.json"

// item is one image in manifest.json. Other members (Parent, LayerSources) say nothing that is needed.
type item struct {
	Config   string
	RepoTags []string
	Layers   []string // base first
}

// OpenDocker opens an image of a docker-archive: ref is name:tag, "@N" for the N-th in the archive, or "" for the only
// one. Class notfound when it is not there; class invalid when ref is empty and there are several. The caller closes the
// source.
//
// The manifest is schema 2, made from manifest.json and the configuration, whose bytes stay. Layers are named by the
// digest of the bytes in the archive: the diff ID of a plain one, else what its name or its content says. Of an archive
// from before Docker 1.10 the manifest is schema 1, unsigned, made from the json files of its images.
func OpenDocker(ctx context.Context, path, ref string, o Options) (*Source, error) {
	return open(ctx, path, o, func(s *Source) error { return s.openDocker(ctx, ref) })
}

func (s *Source) openDocker(ctx context.Context, ref string) error {
	data, err := s.tar.read(manifestFile, maxList)
	if kimg.ClassOf(err) == kimg.ErrNotFound {
		return s.openLegacy(ctx, ref)
	}
	if err != nil {
		return err
	}
	items, err := parseItems(data)
	if err != nil {
		return kimg.Wrap(manifestFile, err)
	}
	tags := make([][]string, len(items))
	for i, it := range items {
		tags[i] = it.RepoTags
	}
	n, err := choose(tags, ref)
	if err != nil {
		return err
	}
	return s.openItem(ctx, items[n])
}

func parseItems(data []byte) ([]item, error) {
	var items []item
	err := strict.UnmarshalExact(data, &items)
	return items, err
}

func (s *Source) openItem(ctx context.Context, it item) error {
	config, diffIDs, err := s.openConfig(it)
	if err != nil {
		return err
	}
	layers, err := s.openLayers(ctx, it.Layers, diffIDs)
	if err != nil {
		return err
	}
	s.manifest, err = strict.Marshal(docker.Manifest{SchemaVersion: 2, MediaType: docker.MediaTypeManifest, Config: config, Layers: layers})
	return err
}

// openConfig finds the configuration and the diff IDs in it.
func (s *Source) openConfig(it item) (desc docker.Descriptor, diffIDs []digest.Digest, err error) {
	m, err := s.tar.find(it.Config)
	if err != nil {
		return desc, nil, err
	}
	data, err := s.tar.read(it.Config, strict.MaxDocument)
	if err != nil {
		return desc, nil, err
	}
	d := digest.FromBytes(data)
	if named, ok := digestOf(it.Config); ok && named != d {
		return desc, nil, kimg.Errorf(kimg.ErrIntegrity, named.String(), "blob-digest: the configuration has another digest")
	}
	if diffIDs, err = parseDiffIDs(data); err != nil {
		return desc, nil, err
	}
	if len(it.Layers) > maxChain {
		return desc, nil, kimg.Errorf(kimg.ErrLimit, manifestFile, "%d layers, more than %d", len(it.Layers), maxChain)
	}
	if len(diffIDs) != len(it.Layers) {
		return desc, nil, kimg.Errorf(kimg.ErrInvalid, manifestFile, "count: %d layers, %d diff IDs in the configuration", len(it.Layers), len(diffIDs))
	}
	s.blobs[d] = m
	return docker.Descriptor{MediaType: docker.MediaTypeConfig, Size: int64(len(data)), Digest: d}, diffIDs, nil
}

// parseDiffIDs reads the digests of the layers' tars out of a configuration, base first.
func parseDiffIDs(data []byte) ([]digest.Digest, error) {
	var config struct {
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	err := strict.Unmarshal(data, &config)
	for _, d := range config.RootFS.DiffIDs {
		if err == nil {
			err = strict.Digest(d.String())
		}
	}
	return config.RootFS.DiffIDs, kimg.Wrap("config", err)
}

// digestOf reads the digest out of the path of a blob in a file that is an OCI layout too, or out of the name that Docker gives a
// configuration.
func digestOf(name string) (digest.Digest, bool) {
	if hex, ok := strings.CutSuffix(name, ".json"); ok {
		d := digest.NewDigestFromEncoded(digest.SHA256, hex)
		return d, strict.Digest(d.String()) == nil
	}
	parts := strings.Split(path.Clean(name), "/")
	if len(parts) != 3 || parts[0] != "blobs" {
		return "", false
	}
	d := digest.Digest(parts[1] + ":" + parts[2])
	return d, strict.Digest(d.String()) == nil
}

// openLayers finds the layers and describes the blobs they are.
func (s *Source) openLayers(ctx context.Context, names []string, diffIDs []digest.Digest) ([]docker.Descriptor, error) {
	layers := make([]docker.Descriptor, len(names))
	members := make([]member, len(names))
	var unknown []int // compressed, with a name that says nothing
	for i, name := range names {
		m, err := s.tar.find(name)
		if err != nil {
			return nil, layerMissing(err)
		}
		a, err := s.compressionOf(m)
		if err != nil {
			return nil, err
		}
		layers[i] = docker.Descriptor{MediaType: layerType(a), Size: m.size, Digest: diffIDs[i]}
		members[i] = m
		if a != compression.None {
			var named bool
			if layers[i].Digest, named = digestOf(name); !named {
				unknown = append(unknown, i)
			}
		}
	}
	if err := s.hash(ctx, len(unknown), func(i int) (member, *digest.Digest) { return members[unknown[i]], &layers[unknown[i]].Digest }); err != nil {
		return nil, err
	}
	for i, l := range layers {
		if other, twice := s.blobs[l.Digest]; twice && other.size != members[i].size {
			return nil, kimg.Errorf(kimg.ErrInvalid, l.Digest.String(), "ambiguous: two files of different size for one layer")
		} else if !twice {
			s.blobs[l.Digest] = members[i]
		}
	}
	return layers, nil
}

func layerMissing(err error) error {
	if kimg.ClassOf(err) == kimg.ErrNotFound {
		return kimg.Errorf(kimg.ErrNotFound, "", "blob-missing: layer %w", err)
	}
	return err
}

func (s *Source) compressionOf(m member) (compression.Algorithm, error) {
	var first [6]byte
	n, err := s.tar.reader(m).ReadAt(first[:], 0)
	if err != nil && err != io.EOF {
		return "", err
	}
	return compression.Detect(first[:n]), nil
}

// layerType labels a layer. There is no label for bzip2 and xz: whoever reads a layer looks at its first bytes.
func layerType(a compression.Algorithm) string {
	switch a {
	case compression.Gzip:
		return docker.MediaTypeLayerGzip
	case compression.Zstd:
		return docker.MediaTypeLayerZstd
	}
	return docker.MediaTypeLayer
}

// hash computes the digests of n members side by side; of members that are the same bytes once, for all images of the archive.
func (s *Source) hash(ctx context.Context, n int, at func(i int) (member, *digest.Digest)) error {
	places := map[int64][]*digest.Digest{}
	jobs := make(chan member, n)
	for i := range n {
		m, d := at(i)
		if known, ok := s.tar.hashed.Load(m.offset); ok {
			*d = known.(digest.Digest)
			continue
		}
		if places[m.offset] == nil {
			jobs <- m
		}
		places[m.offset] = append(places[m.offset], d)
	}
	close(jobs)
	var wg sync.WaitGroup
	errs := make([]error, min(runtime.GOMAXPROCS(0), n))
	for w := range errs {
		wg.Go(func() {
			for m := range jobs {
				meter := streamio.NewMeter(nil)
				if _, errs[w] = streamio.Copy(meter, streamio.WithContext(ctx, s.tar.reader(m))); errs[w] != nil {
					return
				}
				if meter.Size() != m.size {
					errs[w] = tarError(io.ErrUnexpectedEOF)
					return
				}
				sum := meter.Digest()
				s.tar.hashed.Store(m.offset, sum)
				for _, d := range places[m.offset] {
					*d = sum
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
