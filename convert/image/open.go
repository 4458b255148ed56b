package image

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store/archive"
	"github.com/kimg/kimg/store/layout"
)

// openSource opens the image a reference means and asks the policy about it. What has to be unpacked for that goes to temp;
// empty: where the system wants it. The caller closes the source.
func (c *Converter) openSource(ctx context.Context, ref types.ImageReference, temp string) (Source, error) {
	path, name, _ := strings.Cut(ref.StringWithinTransport(), ":")
	var src Source
	var err error
	switch ref.Transport().Name() {
	case transportDir:
		src, err = layout.OpenDir(ref.StringWithinTransport())
	case transportOCI:
		src, err = layout.OpenOCI(path, name)
	case transportOCIArchive:
		src, err = archive.OpenOCI(ctx, path, name, archive.Options{TempDir: temp})
	case transportDockerArchive:
		src, err = archive.OpenDocker(ctx, path, name, archive.Options{TempDir: temp})
	case transportDocker:
		src, err = c.openRemote(ctx, ref)
	case transportStore:
		return c.openStored(ctx, ref.StringWithinTransport())
	default:
		err = kimg.Errorf(kimg.ErrUnsupported, "", "images of %s: are not converted", ref.Transport().Name())
	}
	if err != nil {
		return nil, err
	}
	if manifest, merr := src.Manifest(ctx); merr != nil || c.wanted() == nil || !convert.IsIndex(manifest, "") {
		err = c.judge(ctx, ref, src, nil)
	} // of the index only one image is taken, and that is asked about: as other tools do, who sign no indexes
	if err != nil {
		src.Close()
		return nil, err
	}
	return src, nil
}

// tempDir is where a conversion may write anyhow: in the destination, or beside it when it is not there yet.
func tempDir(dst types.ImageReference) string {
	path, _, _ := strings.Cut(dst.StringWithinTransport(), ":")
	switch dst.Transport().Name() {
	case transportStore, transportDocker:
		return ""
	case transportDir:
		path = dst.StringWithinTransport()
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return path
	}
	return filepath.Dir(path)
}

// place is what a kind of destination holds.
type place struct {
	formats []convert.Format // the first is what an image becomes that is of none of them
	index   bool
	plain   bool // layers are not compressed
	signed  bool // signatures have a place
}

var places = map[string]place{
	transportDir:           {formats: []convert.Format{convert.DockerV2S2, convert.OCI, convert.DockerV2S1}, index: true, signed: true},
	transportOCI:           {formats: []convert.Format{convert.OCI}, index: true},
	transportOCIArchive:    {formats: []convert.Format{convert.OCI}, index: true},
	transportDockerArchive: {formats: []convert.Format{convert.DockerV2S2}, plain: true},
	transportDocker:        {formats: []convert.Format{convert.DockerV2S2, convert.OCI, convert.DockerV2S1}, index: true, signed: true},
	transportStore:         {formats: []convert.Format{convert.DockerV2S2, convert.OCI}, signed: true},
}

// openDestination prepares a place outside the store.
func (c *Converter) openDestination(ctx context.Context, ref types.ImageReference) (Destination, error) {
	path, name, _ := strings.Cut(ref.StringWithinTransport(), ":")
	if strings.HasPrefix(name, "@") {
		return nil, kimg.Errorf(kimg.ErrInvalid, "", "a number is not the name of a new image")
	}
	switch ref.Transport().Name() {
	case transportDir:
		return layout.CreateDir(ctx, ref.StringWithinTransport(), layout.Options{NoSync: c.o.NoSync, Verified: &c.verified})
	case transportOCI:
		return layout.CreateOCI(ctx, path, name, layout.Options{NoSync: c.o.NoSync, Verified: &c.verified})
	case transportDocker:
		return c.createRemote(ctx, ref)
	case transportOCIArchive:
		return archive.CreateOCI(ctx, path, name, archive.Options{NoSync: c.o.NoSync})
	}
	var names []string
	if name != "" {
		names = []string{name}
	}
	return archive.CreateDocker(ctx, path, names, archive.Options{NoSync: c.o.NoSync})
}

// place returns what the destination of a reference holds, and refuses a format that it does not.
func (c *Converter) place(ref types.ImageReference) (place, error) {
	transport := ref.Transport().Name()
	at, ok := places[transport]
	if !ok {
		return at, kimg.Errorf(kimg.ErrUnsupported, "", "images are not written to %s:", transport)
	}
	if c.o.Format != "" && !at.holds(c.o.Format) {
		return at, kimg.Errorf(kimg.ErrUnsupported, "", "%s: does not hold images of format %s", transport, kimg.Quote(string(c.o.Format)))
	}
	return at, nil
}

func (p place) holds(f convert.Format) bool {
	for _, held := range p.formats {
		if held == f {
			return true
		}
	}
	return false
}

// format is what an image of a format becomes there. Schema 1 is written when it is asked for, never by itself.
func (j *job) format(at place, from convert.Format) convert.Format {
	if j.o.Format != "" {
		return j.o.Format
	}
	if packing := j.o.Compression; (packing == layerdiff.Zstd || packing == layerdiff.ZstdChunked) && at.holds(convert.OCI) {
		return convert.OCI // the only one that has it
	}
	if at.holds(from) && (from != convert.DockerV2S1 || j.kept(from)) {
		return from
	}
	return at.formats[0]
}

// shape decides how layers lie there.
func (p place) shape(to convert.Format, fromStore bool, packing compression.Algorithm) shape {
	return func(a compression.Algorithm) form {
		switch {
		case (p.plain || packing == compression.None) && a != compression.None:
			return asPlain
		case packing == compression.None:
			return keep
		case packing != "" && a != packing && !p.plain:
			return packAnew
		case p.plain:
			return keep
		case fromStore && a == compression.None, a == compression.Bzip2, a == compression.Xz, (a == compression.Zstd || a == zstdChunked) && to != convert.OCI:
			return packAnew
		}
		return keep
	}
}
