package archive

import (
	"bufio"
	"cmp"
	"context"
	"io"
	"os"
	"slices"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/store/layout"
)

// Archive is an archive of any kind, with all of its images.
type Archive struct {
	// OCI: it is an image layout, which a file that is both is read as, because only that names all platforms.
	OCI bool
	// Images are the names of each image, as the archive has them: they may be anything. None: the image has no name.
	Images [][]string

	tar  *tarFile
	open []func(ctx context.Context, s *Source) error // each of them
}

// Open opens an archive, compressed or not. Class invalid when it is none. The caller closes it.
func Open(ctx context.Context, path string, o Options) (*Archive, error) {
	t, err := openTar(ctx, path, o.TempDir)
	if err != nil {
		return nil, kimg.Wrap(path, err)
	}
	a, err := newArchive(t)
	return a, kimg.Wrap(path, err)
}

// Spool opens an archive that can be read once only, compressed or not: it is kept, unpacked, in a file without a name in TempDir.
// The caller closes it.
func Spool(ctx context.Context, r io.Reader, o Options) (*Archive, error) {
	tmp, err := safeopen.Nameless(o.TempDir, prefix)
	if err != nil {
		return nil, err
	}
	if err := fill(ctx, tmp, bufio.NewReaderSize(r, 1<<20)); err != nil {
		tmp.Close()
		return nil, err
	}
	return fromFile(ctx, tmp, o)
}

// SpoolFile is [Spool] for an open file, which is read in place when it is a plain archive from its beginning. The archive closes it.
func SpoolFile(ctx context.Context, f *os.File, o Options) (*Archive, error) {
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		var at int64
		if at, err = f.Seek(0, io.SeekCurrent); err == nil && at == 0 {
			return fromFile(ctx, f, o)
		}
	}
	defer f.Close()
	if err != nil {
		return nil, err
	}
	return Spool(ctx, f, o)
}

func fromFile(ctx context.Context, f *os.File, o Options) (*Archive, error) {
	t, err := indexed(ctx, f, o.TempDir)
	if err != nil {
		return nil, err
	}
	return newArchive(t)
}

func newArchive(t *tarFile) (*Archive, error) {
	a := &Archive{tar: t}
	if err := a.list(); err != nil {
		t.close()
		return nil, err
	}
	return a, nil
}

// list finds the images.
func (a *Archive) list() error {
	data, err := a.tar.read(ispec.ImageIndexFile, maxIndexFile)
	if kimg.ClassOf(err) != kimg.ErrNotFound {
		if err != nil {
			return err
		}
		a.OCI = true
		images, err := layout.Images(data)
		for _, i := range images {
			a.add(i.Names, func(_ context.Context, s *Source) error {
				if err := i.Check(); err != nil {
					return err
				}
				return s.openEntry(i.Descriptor)
			})
		}
		return cmp.Or(err, a.tar.checkLayout())
	}
	if data, err = a.tar.read(manifestFile, maxList); err == nil {
		items, err := parseItems(data)
		for _, it := range items {
			a.add(it.RepoTags, func(ctx context.Context, s *Source) error { return s.openItem(ctx, it) })
		}
		return kimg.Wrap(manifestFile, err)
	}
	if kimg.ClassOf(err) != kimg.ErrNotFound {
		return err
	}
	if data, err = a.tar.read(repositoriesFile, maxList); kimg.ClassOf(err) == kimg.ErrNotFound {
		return kimg.Errorf(kimg.ErrInvalid, "", "not-an-image: none of %s, %s and %s is in the archive", ispec.ImageIndexFile, manifestFile, repositoriesFile)
	}
	if err != nil {
		return err
	}
	all, err := parseRepositories(data)
	ids, tags := byID(all)
	for i, id := range ids {
		a.add(tags[i], func(ctx context.Context, s *Source) error { return s.openChain(ctx, tags[i][0], id) })
	}
	return kimg.Wrap(repositoriesFile, err)
}

func (a *Archive) add(names []string, open func(ctx context.Context, s *Source) error) {
	a.Images, a.open = append(a.Images, names), append(a.open, open)
}

// byID groups the tags of a legacy archive.
func byID(all []legacyTag) (ids []string, tags [][]string) {
	for _, t := range all {
		i := slices.Index(ids, t.id)
		if i < 0 {
			i, ids, tags = len(ids), append(ids, t.id), append(tags, nil)
		}
		tags[i] = append(tags[i], t.text)
	}
	return ids, tags
}

// Image opens one of the images, which is good until the archive is closed and need not be closed itself.
func (a *Archive) Image(ctx context.Context, n int) (*Source, error) {
	s := newSource(a.tar)
	return s, a.open[n](ctx, s)
}

// Close releases the archive.
func (a *Archive) Close() error { return a.tar.close() }
