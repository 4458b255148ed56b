package commit

import (
	"context"
	"slices"
	"strings"

	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store/archive"
	"github.com/kimg/kimg/store/layout"
)

// The transports of destinations, as in the references of users.
const (
	transportDir           = "dir"
	transportOCI           = "oci"
	transportOCIArchive    = "oci-archive"
	transportDockerArchive = "docker-archive"
	transportDocker        = "docker"
)

// place is one destination and what it holds.
type place struct {
	path, name string           // of files and directories: where, and what the image is called there
	formats    []convert.Format // the first is the default
	many       bool             // several images, by their names
	plain      bool             // layers are never compressed
}

func placeOf(dest types.ImageReference) (place, error) {
	p := place{formats: []convert.Format{convert.OCI, convert.DockerV2S2}}
	p.path, p.name, _ = strings.Cut(dest.StringWithinTransport(), ":")
	switch transport := dest.Transport().Name(); transport {
	case transportDir:
		p.path, p.name = dest.StringWithinTransport(), ""
	case transportOCI:
		p.formats, p.many = p.formats[:1], true
	case transportOCIArchive:
		p.formats = p.formats[:1]
	case transportDockerArchive:
		p.formats, p.plain = p.formats[1:], true
	case transportDocker:
		p.many = true
	default:
		return p, kimg.Errorf(kimg.ErrUnsupported, "", "images are not committed to %s:", transport)
	}
	if strings.HasPrefix(p.name, "@") {
		return p, kimg.Errorf(kimg.ErrInvalid, "", "a number is not the name of a new image")
	}
	return p, nil
}

// format is that of the image there.
func (p place) format(o Options) convert.Format {
	if o.Format != "" {
		return o.Format
	}
	return p.formats[0]
}

// compression is that of the layers there.
func (p place) compression(dest types.ImageReference, co CopyOptions) layerdiff.Compression {
	switch {
	case co.Compression == Uncompressed, co.Compression == "" && dest.Transport().Name() != transportDocker:
		return layerdiff.NoCompression
	case co.Compression == "":
		return layerdiff.Gzip
	}
	return co.Compression
}

// fits refuses what the place does not hold.
func (p place) fits(o Options, co CopyOptions) error {
	if f := p.format(o); !slices.Contains(p.formats, f) {
		return kimg.Errorf(kimg.ErrInvalid, "", "holds %s images, not %s", p.formats[0], kimg.Quote(string(f)))
	}
	if p.plain && co.Compression != "" && co.Compression != Uncompressed {
		return kimg.Errorf(kimg.ErrInvalid, "", "holds uncompressed layers only")
	}
	return checkCompression(p.format(o), co.Compression, co.Level)
}

// local opens a place in the file system.
func (p place) local(ctx context.Context, transport string, noSync bool) (destination, error) {
	switch transport {
	case transportDir:
		return layout.CreateDir(ctx, p.path, layout.Options{NoSync: noSync})
	case transportOCI:
		return layout.CreateOCI(ctx, p.path, p.name, layout.Options{NoSync: noSync})
	case transportOCIArchive:
		return archive.CreateOCI(ctx, p.path, p.name, archive.Options{NoSync: noSync})
	}
	var names []string
	if p.name != "" {
		names = []string{p.name}
	}
	return archive.CreateDocker(ctx, p.path, names, archive.Options{NoSync: noSync})
}

// label names a destination as users write it.
func label(dest types.ImageReference) string {
	return kimg.Escape(dest.Transport().Name()+":"+dest.StringWithinTransport(), 300)
}
