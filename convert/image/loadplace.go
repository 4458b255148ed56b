package image

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/containers/image/v5/directory"
	dockerarchive "github.com/containers/image/v5/docker/archive"
	ociarchive "github.com/containers/image/v5/oci/archive"
	ocilayout "github.com/containers/image/v5/oci/layout"
	"github.com/containers/image/v5/types"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/store/archive"
	"github.com/kimg/kimg/store/layout"
)

// incoming is a place with images on their way into the store.
type incoming struct {
	io.Closer
	ref   types.ImageReference // of the place, for the policy
	names [][]string
	open  func(ctx context.Context, n int) (Source, error) // the source is closed with its place, if it must be
}

// openPlace opens a file or a directory. Errors name it.
func openPlace(ctx context.Context, path string, o archive.Options) (*incoming, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		a, err := archive.Open(ctx, path, o)
		if err != nil {
			return nil, err
		}
		in, err := archived(a, path)
		if err != nil {
			a.Close()
		}
		return in, err
	}
	root, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	index, err := safeopen.ReadIn(root, ispec.ImageIndexFile, maxLoadedIndex)
	if kimg.ClassOf(err) == kimg.ErrNotFound {
		return openDirectory(path)
	}
	images, ierr := layout.Images(index)
	if err = cmp.Or(err, ierr); err != nil {
		return nil, kimg.Wrap(path, err)
	}
	var opened closers
	in := &incoming{Closer: &opened}
	for _, i := range images {
		in.names = append(in.names, i.Names)
	}
	in.open = func(_ context.Context, n int) (Source, error) {
		src, err := layout.OpenImage(path, images[n])
		if err != nil {
			return nil, err
		}
		opened = append(opened, src)
		return src, nil
	}
	in.ref, err = ocilayout.NewReference(path, "")
	return in, err
}

// maxLoadedIndex is how large the index.json of a layout may be, in bytes.
const maxLoadedIndex = 4 << 20

// openDirectory opens what dir: means.
func openDirectory(path string) (*incoming, error) {
	src, err := layout.OpenDir(path)
	if err != nil {
		return nil, err
	}
	ref, err := directory.NewReference(path)
	if err != nil {
		src.Close()
		return nil, err
	}
	return &incoming{Closer: src, ref: ref, names: [][]string{nil}, open: func(context.Context, int) (Source, error) { return src, nil }}, nil
}

// archived makes a place of an archive. An empty path is a stream, which the policy knows by its transport only.
func archived(a *archive.Archive, path string) (*incoming, error) {
	in := &incoming{Closer: a, names: a.Images, open: func(ctx context.Context, n int) (Source, error) { return a.Image(ctx, n) }}
	var err error
	switch {
	case !a.OCI:
		in.ref, err = dockerarchive.NewReference(filepath.Join("/", path), nil)
	case path == "":
		in.ref, err = ociarchive.NewReference("/", "")
		in.ref = placeless{in.ref}
	default:
		in.ref, err = ociarchive.NewReference(path, "")
	}
	return in, err
}

// placeless is a reference to something that has no path.
type placeless struct{ types.ImageReference }

func (placeless) PolicyConfigurationIdentity() string     { return "" }
func (placeless) PolicyConfigurationNamespaces() []string { return nil }

type closers []io.Closer

func (c closers) Close() error {
	var errs []error
	for _, one := range c {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}
