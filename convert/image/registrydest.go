package image

import (
	"cmp"
	"context"
	"io"
	"reflect"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/image"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/registry"
)

// remoteDestination is a registry as a Destination.
type remoteDestination struct {
	*registry.Destination
	ref  types.ImageReference
	sys  *types.SystemContext
	also []string // tags

	before, after []signing // the manifest is published
}

func (c *Converter) createRemote(ctx context.Context, ref types.ImageReference) (*remoteDestination, error) {
	sys := cmp.Or(c.o.DestinationSys, c.o.Sys)
	to, err := registry.Create(ctx, ref, sys, c.patience(), c.seen)
	return &remoteDestination{Destination: to, ref: ref, sys: sys, also: c.o.AdditionalTags}, err
}

// near notes that a blob is in another repository, which may be one of the same registry: it is mounted and not sent.
func (d *remoteDestination) near(src types.ImageReference, blob digest.Digest) {
	if src.Transport().Name() != transportDocker {
		return
	}
	name := src.DockerReference()
	// The library mounts only what it knows a compression of, and takes that from its own copies only. Any will do: blobs are used as they
	// are here. The type of the note is internal to it.
	if note := reflect.ValueOf(d.Seen).MethodByName("RecordDigestCompressorData"); note.IsValid() && note.Type().NumIn() == 2 {
		data := reflect.New(note.Type().In(1)).Elem()
		if data.Kind() == reflect.Struct && data.FieldByName("BaseVariantCompressor").Kind() == reflect.String {
			data.FieldByName("BaseVariantCompressor").SetString("uncompressed")
			note.Call([]reflect.Value{reflect.ValueOf(blob), data})
		}
	}
	d.Seen.RecordKnownLocation(src.Transport(), types.BICTransportScope{Opaque: reference.Domain(name)}, blob, types.BICLocationReference{Opaque: name.Name()})
}

// Has implements Destination.
func (d *remoteDestination) Has(ctx context.Context, blob digest.Digest, size int64) (bool, error) {
	there, err := d.Destination.Has(ctx, blob, size)
	return there, kimg.Wrap(label(d.ref), err)
}

// Put implements Destination.
func (d *remoteDestination) Put(ctx context.Context, blob digest.Digest, size int64, r io.Reader) (digest.Digest, int64, error) {
	blob, size, err := d.Destination.Put(ctx, blob, size, r)
	return blob, size, kimg.Wrap(label(d.ref), err)
}

// PutManifest implements indexDestination.
func (d *remoteDestination) PutManifest(ctx context.Context, instance digest.Digest, manifest []byte) error {
	return kimg.Wrap(label(d.ref), d.Destination.PutManifest(ctx, instance, manifest))
}

// PutSignatures implements signedDestination.
func (d *remoteDestination) PutSignatures(ctx context.Context, instance digest.Digest, files [][]byte) error {
	if err := d.Ask(ctx, func(ctx context.Context, to types.ImageDestination) error { return to.SupportsSignatures(ctx) }); err != nil {
		return err
	}
	var simple, cosign [][]byte
	for _, one := range files {
		if isCosign(one) {
			cosign = append(cosign, one)
		} else {
			simple = append(simple, one)
		}
	}
	for _, kind := range []struct {
		files [][]byte
		to    *[]signing
	}{{simple, &d.after}, {cosign, &d.before}} {
		if len(kind.files) == 0 {
			continue
		}
		img, err := understand(ctx, d.ref, kind.files)
		if err != nil {
			return err
		}
		signatures, err := img.UntrustedSignatures(ctx)
		if err != nil {
			return err
		}
		*kind.to = append(*kind.to, func(ctx context.Context, to types.ImageDestination, manifest digest.Digest) error {
			if instance != "" {
				manifest = instance
			}
			return putSignatures(ctx, to, manifest, signatures)
		})
	}
	return nil
}

// signing puts signatures of an instance, or else of the manifest that is committed.
type signing func(ctx context.Context, to types.ImageDestination, manifest digest.Digest) error

// Commit implements Destination. Additional tags come after the name. What cosign made comes first, as it may be that registries.d
// does not allow it; simple signatures come last, as some registries want to have what is signed.
func (d *remoteDestination) Commit(ctx context.Context, manifest []byte, _ string) error {
	id, err := convert.ManifestDigest(manifest)
	sign := func(all []signing) {
		for _, put := range all {
			if err == nil {
				err = d.Ask(ctx, func(ctx context.Context, to types.ImageDestination) error { return put(ctx, to, id) })
			}
		}
	}
	sign(d.before)
	if err == nil {
		err = d.Destination.PutManifest(ctx, "", manifest)
	}
	for _, tag := range d.also {
		if err == nil {
			err = d.name(ctx, manifest, tag)
		}
	}
	sign(d.after)
	if err == nil {
		err = (*d.Now()).Commit(ctx, image.UnparsedInstance(nothing{ref: d.ref}, nil))
	}
	return err
}

// name gives the image another tag.
func (d *remoteDestination) name(ctx context.Context, manifest []byte, tag string) error {
	ref, err := retagged(d.ref, tag)
	if err != nil {
		return err
	}
	return kimg.Wrap(tag, d.Patience.Ask(ctx, func(ctx context.Context) error {
		to, err := ref.NewImageDestination(ctx, d.sys)
		if err != nil {
			return err
		}
		defer to.Close()
		return to.PutManifest(ctx, manifest, nil)
	}))
}

// nothing is an image of which nothing is known but simple signatures. The library's registries want to be told of one when they are
// done; they do not look at it.
type nothing struct {
	types.ImageSource
	ref        types.ImageReference
	signatures [][]byte
}

func (n nothing) Reference() types.ImageReference { return n.ref }

func (n nothing) GetSignatures(context.Context, *digest.Digest) ([][]byte, error) {
	return n.signatures, nil
}
