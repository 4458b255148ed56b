package image

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containers/image/v5/directory"
	"github.com/containers/image/v5/image"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/staging"
	"github.com/kimg/kimg/internal/strict"
)

// Signatures are kept as the files of dir: have them (containers/image, docs/signature-protocols.md): a simple signature is its OpenPGP
// message, what cosign made is JSON after "\x00sigstore-json\n". The library's own type is internal to it; only its inference gets
// through here.

// signedSource is a source that may have signatures beside its manifests.
type signedSource interface {
	// Signatures returns those of the manifest the name leads to, or of an image of the index unless that is empty.
	Signatures(ctx context.Context, instance digest.Digest) ([][]byte, error)
}

// signedDestination is a place that has them.
type signedDestination interface {
	// PutSignatures stages those of the manifest that will be committed, or of an image of the index unless that is empty.
	PutSignatures(ctx context.Context, instance digest.Digest, files [][]byte) error
}

// signatures are those of the image, or of one image of its index, that go along. They are never lost but knowingly: with Options.Keep a
// place without room for them is class unsupported, and else, as an image that is converted is another, the report tells.
func (j *job) signatures(ctx context.Context, instance digest.Digest) (files [][]byte, lost convert.Report, err error) {
	from, ok := j.from.(signedSource)
	if _, archived := j.to.(*bundle); !ok || archived || j.o.RemoveSignatures { // archives of save have none, as podman's
		return nil, nil, nil
	}
	files, err = from.Signatures(ctx, instance)
	switch {
	case err != nil || len(files) == 0:
		return nil, nil, err
	case !j.o.Keep:
		return nil, convert.Report{{Path: "signatures", Kind: convert.Lost, Why: "they are of the image that was converted, and not of what became of it"}}, nil
	case !j.at.signed:
		return nil, nil, kimg.Errorf(kimg.ErrUnsupported, label(j.dst), "has no place for the %d signatures of the image: leave them behind (--remove-signatures)", len(files))
	}
	return files, nil, nil
}

// voided refuses to change an image whose signatures go along.
func voided(why string) error {
	return kimg.Errorf(kimg.ErrUnsupported, "", "the image is signed and would change: %s; leave the signatures behind (--remove-signatures)", why)
}

// sign puts signatures to the destination.
func (j *job) sign(ctx context.Context, instance digest.Digest, files [][]byte) error {
	if to, ok := j.to.(signedDestination); ok && len(files) > 0 {
		return kimg.Wrap(label(j.dst), to.PutSignatures(ctx, instance, files))
	}
	return nil
}

// putSignatures has a destination of the library put signatures of any kind.
func putSignatures[S any](ctx context.Context, to types.ImageDestination, manifest digest.Digest, signatures []S) error {
	library, ok := to.(interface {
		PutSignaturesWithFormat(context.Context, []S, *digest.Digest) error
	})
	if !ok {
		return kimg.Errorf(kimg.ErrUnsupported, "", "the image library does not put signatures there")
	}
	return library.PutSignaturesWithFormat(ctx, signatures, &manifest)
}

// optional is nil for the image itself, as the library wants it.
func optional(instance digest.Digest) *digest.Digest {
	if instance == "" {
		return nil
	}
	return &instance
}

// signatureFiles are signatures of the library as files.
func signatureFiles[S any](signatures []S) (files [][]byte, err error) {
	for _, one := range signatures {
		switch s := any(one).(type) {
		case interface{ UntrustedSignature() []byte }:
			files = append(files, s.UntrustedSignature())
		case interface {
			UntrustedMIMEType() string
			UntrustedPayload() []byte
			UntrustedAnnotations() map[string]string
		}:
			data, err := strict.Marshal(struct {
				MIMEType    string            `json:"mimeType"`
				Payload     []byte            `json:"payload"`
				Annotations map[string]string `json:"annotations"`
			}{s.UntrustedMIMEType(), s.UntrustedPayload(), s.UntrustedAnnotations()})
			if err != nil {
				return nil, err
			}
			files = append(files, append([]byte("\x00sigstore-json\n"), data...))
		default:
			return nil, kimg.Errorf(kimg.ErrUnsupported, "", "a signature of a kind that is not known")
		}
	}
	return files, nil
}

// isCosign tells the kinds of signatures apart.
func isCosign(file []byte) bool { return bytes.HasPrefix(file, []byte{0}) }

// understand has the library read signatures of an image; those of cosign from the only place where it reads any kind, a directory,
// which is gone when it returns, and with the next call after a kill. Class invalid for what is no signature.
func understand(ctx context.Context, ref types.ImageReference, files [][]byte) (*image.UnparsedImage, error) {
	if !slices.ContainsFunc(files, isCosign) {
		return image.UnparsedInstance(nothing{ref: ref, signatures: files}, nil), nil
	}
	area, err := staging.Open(os.TempDir(), false)
	if err != nil {
		return nil, err
	}
	defer area.Close()
	for n, data := range files {
		if err := os.WriteFile(filepath.Join(area.Dir(), fmt.Sprintf("signature-%d", n+1)), data, 0o600); err != nil {
			return nil, err
		}
	}
	place, err := directory.NewReference(area.Dir())
	if err != nil {
		return nil, err
	}
	src, err := place.NewImageSource(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	img := image.UnparsedInstance(src, nil)
	if _, err := img.Signatures(ctx); err != nil { // from now on it has them
		return nil, kimg.Errorf(kimg.ErrInvalid, "signatures", "%w", cmp.Or(errors.Unwrap(err), err))
	}
	return img, nil
}
