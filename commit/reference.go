package commit

import (
	"context"
	"strings"
	"sync"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/image"
	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// Reference returns the image a container would be committed to, as a reference that copy.Image copies to any
// transport. Nothing is read until the copy asks for it. A file that changes while it is read, or between the pass that
// hashes it and the pass that copies it, fails the copy.
//
// Without Options.Compression the layers are offered uncompressed under their diffIDs, and the destination's options decide
// on compression. With it they are offered compressed, and the store remembers what came out: an image that goes to the same
// place again is neither compressed nor sent again. A blob that does not come out as remembered fails the copy and is
// forgotten, so that the next copy names it anew; [Copy] tries again by itself. zstd:chunked is class unsupported here: containers/image
// writes it, when the destination's options say so.
//
// The first of Options.Names is the reference's own name, by which policies and signatures know the image; one that is not
// valid is class invalid. Where the image goes is for the destination to say. Options.Remove has no meaning here.
func Reference(st *store.Store, id string, o Options) (types.ImageReference, error) {
	c, err := st.Container(context.Background(), id)
	if err != nil {
		return nil, err
	}
	names, err := store.NormalizeNames(o.Names)
	if err != nil {
		return nil, err
	}
	if err := checkCompression(o.format(), o.Compression, o.Level); err != nil {
		return nil, err
	}
	if o.Compression == layerdiff.ZstdChunked {
		return nil, kimg.Errorf(kimg.ErrUnsupported, c.Name, "%s is for the destination to write", o.Compression)
	}
	r := &containerRef{st: st, id: c.ID, o: o}
	if len(names) > 0 {
		if r.named, err = reference.ParseNormalizedNamed(names[0]); err != nil {
			return nil, kimg.Errorf(kimg.ErrInvalid, kimg.Quote(names[0]), "%w", err)
		}
	}
	return r, nil
}

// containerRef is a container seen as an image. It can be read only.
type containerRef struct {
	st *store.Store
	id string
	o  Options

	named reference.Named // may be nil
}

// transport is the transport of references to containers. It has a name, for policies and messages, and no syntax: a
// reference needs a store that is open, so it is not registered and cannot be parsed.
type transport struct{}

// Name implements types.ImageTransport.
func (transport) Name() string { return "kimg-container" }

// ParseReference implements types.ImageTransport.
func (transport) ParseReference(string) (types.ImageReference, error) {
	return nil, kimg.Errorf(kimg.ErrUnsupported, "kimg-container", "a container is referred to by commit.Reference, not by text")
}

// ValidatePolicyConfigurationScope implements types.ImageTransport.
func (transport) ValidatePolicyConfigurationScope(scope string) error {
	if scope != "" && strings.Trim(scope, "0123456789abcdef") != "" {
		return kimg.Errorf(kimg.ErrInvalid, "kimg-container", "a policy scope is a container id")
	}
	return nil
}

func (r *containerRef) Transport() types.ImageTransport         { return transport{} }
func (r *containerRef) StringWithinTransport() string           { return r.id }
func (r *containerRef) DockerReference() reference.Named        { return r.named }
func (r *containerRef) PolicyConfigurationIdentity() string     { return r.id }
func (r *containerRef) PolicyConfigurationNamespaces() []string { return []string{""} }

// NewImage implements types.ImageReference. The caller closes the image.
func (r *containerRef) NewImage(ctx context.Context, sys *types.SystemContext) (types.ImageCloser, error) {
	src, err := r.NewImageSource(ctx, sys)
	if err != nil {
		return nil, err
	}
	return image.FromSource(ctx, sys, src)
}

// NewImageSource implements types.ImageReference: it reads and hashes what the container changed. The caller closes the
// source.
func (r *containerRef) NewImageSource(ctx context.Context, _ *types.SystemContext) (types.ImageSource, error) {
	m := newMaker(ctx, r.st, r.o)
	how := recipe{algo: r.o.Compression, level: r.o.Level}
	hashed, err := r.source(ctx, m, how)
	if err != nil {
		m.close()
		return nil, err
	}
	end := func() {
		m.close()
		_ = hashed.Close() // ends the reading of the container, and never fails
	}
	s, err := hashed.in(ctx, r.o.format(), m, how)
	if err != nil {
		end()
		return nil, err
	}
	s.end = sync.OnceFunc(func() {
		m.keep()
		end()
	})
	return s, nil
}

func (r *containerRef) NewImageDestination(context.Context, *types.SystemContext) (types.ImageDestination, error) {
	return nil, kimg.Errorf(kimg.ErrUnsupported, r.id, "a container cannot be written as an image")
}

func (r *containerRef) DeleteImage(context.Context, *types.SystemContext) error {
	return kimg.Errorf(kimg.ErrUnsupported, r.id, "a container cannot be deleted as an image")
}
