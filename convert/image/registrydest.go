package image

import (
	"cmp"
	"context"
	"errors"
	"io"
	"reflect"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/image"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/regerror"
	"github.com/kimg/kimg/internal/streamio"
)

// remoteDestination is a registry as a Destination. Blobs that were sent stay there when nothing is committed, named by nobody, and the
// registry collects them.
type remoteDestination struct {
	session[types.ImageDestination]
	ref  types.ImageReference
	sys  *types.SystemContext
	seen types.BlobInfoCache // where else on this registry blobs are
	also []string            // tags

	before, after []signing // the manifest is published
}

func (c *Converter) createRemote(ctx context.Context, ref types.ImageReference) (*remoteDestination, error) {
	d := &remoteDestination{ref: ref, sys: cmp.Or(c.o.DestinationSys, c.o.Sys), seen: c.seen, also: c.o.AdditionalTags}
	d.Patience = c.at(ref, d.sys)
	d.Limited = true
	d.dial = func(ctx context.Context) (types.ImageDestination, error) { return ref.NewImageDestination(ctx, d.sys) }
	return d, d.begin(ctx)
}

// Close implements Destination.
func (d *remoteDestination) Close() error { return (*d.now()).Close() }

// near notes that a blob is in another repository, which may be one of the same registry: it is mounted and not sent.
func (d *remoteDestination) near(src types.ImageReference, blob digest.Digest) {
	if src.Transport().Name() != transportDocker {
		return
	}
	name := src.DockerReference()
	// The library mounts only what it knows a compression of, and takes that from its own copies only. Any will do: blobs are used as they
	// are here. The type of the note is internal to it.
	if note := reflect.ValueOf(d.seen).MethodByName("RecordDigestCompressorData"); note.IsValid() && note.Type().NumIn() == 2 {
		data := reflect.New(note.Type().In(1)).Elem()
		if data.Kind() == reflect.Struct && data.FieldByName("BaseVariantCompressor").Kind() == reflect.String {
			data.FieldByName("BaseVariantCompressor").SetString("uncompressed")
			note.Call([]reflect.Value{reflect.ValueOf(blob), data})
		}
	}
	d.seen.RecordKnownLocation(src.Transport(), types.BICTransportScope{Opaque: reference.Domain(name)}, blob, types.BICLocationReference{Opaque: name.Name()})
}

// Has implements Destination.
func (d *remoteDestination) Has(ctx context.Context, blob digest.Digest, size int64) (there bool, err error) {
	err = d.ask(ctx, func(ctx context.Context, to types.ImageDestination) (err error) {
		var info types.BlobInfo
		there, info, err = to.TryReusingBlob(ctx, types.BlobInfo{Digest: blob, Size: size}, d.seen, false)
		if err == nil && there && size >= 0 && info.Size >= 0 && info.Size != size {
			err = kimg.Errorf(kimg.ErrIntegrity, blob.String(), "size: the registry has %d bytes, the manifest says %d", info.Size, size)
		}
		return err
	})
	return there, kimg.Wrap(label(d.ref), err)
}

// pushError is a failure of the registry while a blob was sent.
type pushError struct{ error }

func (e pushError) Unwrap() error { return e.error }

func pushed(err error) bool {
	var p pushError
	return errors.As(err, &p)
}

// Put implements Destination.
func (d *remoteDestination) Put(ctx context.Context, blob digest.Digest, size int64, r io.Reader) (digest.Digest, int64, error) {
	if blob != "" {
		v, err := streamio.NewVerifier(r, size, blob)
		if err != nil {
			return "", 0, err
		}
		r = v
	}
	at := d.now()
	info, err := d.Send(ctx, *at, r, types.BlobInfo{Digest: blob, Size: size}, d.seen)
	if err = regerror.Classify(d.judge(ctx, at, err)); err != nil {
		return "", 0, pushError{kimg.Wrap(label(d.ref), err)}
	}
	return info.Digest, info.Size, nil
}

// PutManifest implements indexDestination.
func (d *remoteDestination) PutManifest(ctx context.Context, instance digest.Digest, manifest []byte) error {
	err := d.ask(ctx, func(ctx context.Context, to types.ImageDestination) error {
		return to.PutManifest(ctx, manifest, &instance)
	})
	return kimg.Wrap(label(d.ref), err)
}

// PutSignatures implements signedDestination.
func (d *remoteDestination) PutSignatures(ctx context.Context, instance digest.Digest, files [][]byte) error {
	if err := d.ask(ctx, func(ctx context.Context, to types.ImageDestination) error { return to.SupportsSignatures(ctx) }); err != nil {
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
				err = d.ask(ctx, func(ctx context.Context, to types.ImageDestination) error { return put(ctx, to, id) })
			}
		}
	}
	sign(d.before)
	if err == nil {
		err = d.ask(ctx, func(ctx context.Context, to types.ImageDestination) error { return to.PutManifest(ctx, manifest, nil) })
	}
	for _, tag := range d.also {
		if err == nil {
			err = d.name(ctx, manifest, tag)
		}
	}
	sign(d.after)
	if err == nil {
		err = (*d.now()).Commit(ctx, image.UnparsedInstance(nothing{ref: d.ref}, nil))
	}
	return err
}

// name gives the image another tag.
func (d *remoteDestination) name(ctx context.Context, manifest []byte, tag string) error {
	ref, err := retagged(d.ref, tag)
	if err != nil {
		return err
	}
	return kimg.Wrap(tag, d.Ask(ctx, func(ctx context.Context) error {
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
