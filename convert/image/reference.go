package image

import (
	"context"
	"strings"

	"github.com/containers/image/v5/directory"
	"github.com/containers/image/v5/docker"
	dockerarchive "github.com/containers/image/v5/docker/archive"
	"github.com/containers/image/v5/docker/reference"
	ociarchive "github.com/containers/image/v5/oci/archive"
	"github.com/containers/image/v5/oci/layout"
	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
)

// The names of the transports, as in the references of users.
const (
	transportDir           = "dir"
	transportOCI           = "oci"
	transportOCIArchive    = "oci-archive"
	transportDockerArchive = "docker-archive"
	transportDocker        = "docker"
	transportStore         = "containers-storage"
)

// Parse reads a reference as users write it: dir:PATH, oci:PATH[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME],
// docker://NAME, containers-storage:NAME, or just NAME, which means the store as well. Other transports are class
// unsupported. Nothing is opened.
func Parse(text string) (types.ImageReference, error) {
	ref, err := parse(text)
	if err != nil && kimg.ClassOf(err) == kimg.ErrInternal {
		err = kimg.Errorf(kimg.ErrInvalid, kimg.Quote(text), "%w", err)
	}
	return ref, err
}

func parse(text string) (types.ImageReference, error) {
	transport, rest, _ := strings.Cut(text, ":")
	path, _, _ := strings.Cut(rest, ":")
	switch transport {
	case transportDir, transportOCI, transportOCIArchive, transportDockerArchive:
		if path == "" {
			return nil, kimg.Errorf(kimg.ErrInvalid, kimg.Quote(text), "there is no path")
		}
	}
	switch transport {
	case transportDir:
		return directory.NewReference(rest)
	case transportOCI:
		return layout.ParseReference(rest)
	case transportOCIArchive:
		return ociarchive.ParseReference(rest)
	case transportDockerArchive:
		return dockerarchive.ParseReference(rest)
	case transportDocker:
		if strings.HasPrefix(rest, "//") {
			return docker.ParseReference(rest)
		}
	case transportStore:
		return InStore(rest), nil
	case "docker-daemon", "sif", "tarball", "ostree", "atomic":
		return nil, kimg.Errorf(kimg.ErrUnsupported, kimg.Quote(text), "images of %s: are not converted", transport)
	}
	return InStore(text), nil
}

// InStore returns a reference to an image by its name or ID in the store that [Options].Store opens. It means something to
// this package only.
func InStore(name string) types.ImageReference { return storeRef(name) }

// NamesStore reports whether a reference means an image of the store, so that it must be opened.
func NamesStore(ref types.ImageReference) bool {
	return ref != nil && ref.Transport().Name() == transportStore
}

// storeRef is an image of the store by name. It carries the name; everything else is done by package store.
type storeRef string

type storeTransport struct{}

func (storeTransport) Name() string { return transportStore }

func (storeTransport) ParseReference(text string) (types.ImageReference, error) {
	return InStore(text), nil
}

func (storeTransport) ValidatePolicyConfigurationScope(string) error { return nil }

func (r storeRef) Transport() types.ImageTransport         { return storeTransport{} }
func (r storeRef) StringWithinTransport() string           { return string(r) }
func (r storeRef) DockerReference() reference.Named        { return nil }
func (r storeRef) PolicyConfigurationIdentity() string     { return "" }
func (r storeRef) PolicyConfigurationNamespaces() []string { return nil }

func (r storeRef) refuse() error {
	return kimg.Errorf(kimg.ErrUnsupported, string(r), "an image of the store is read and written by package store")
}

func (r storeRef) NewImage(context.Context, *types.SystemContext) (types.ImageCloser, error) {
	return nil, r.refuse()
}

func (r storeRef) NewImageSource(context.Context, *types.SystemContext) (types.ImageSource, error) {
	return nil, r.refuse()
}

func (r storeRef) NewImageDestination(context.Context, *types.SystemContext) (types.ImageDestination, error) {
	return nil, r.refuse()
}

func (r storeRef) DeleteImage(context.Context, *types.SystemContext) error { return r.refuse() }

// label names a reference in errors, as users write it.
func label(ref types.ImageReference) string {
	const most = 300
	if NamesStore(ref) {
		return kimg.Escape(ref.StringWithinTransport(), most)
	}
	return kimg.Escape(ref.Transport().Name()+":"+ref.StringWithinTransport(), most)
}
