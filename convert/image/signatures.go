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

// understand has the library read signatures of an image; those of cosign from the only place where it reads any kind, a directory,
// which is gone when it returns. Class invalid for what is no signature.
func understand(ctx context.Context, ref types.ImageReference, files [][]byte) (*image.UnparsedImage, error) {
	if !slices.ContainsFunc(files, func(f []byte) bool { return bytes.HasPrefix(f, []byte{0}) }) { // all are simple ones
		return image.UnparsedInstance(nothing{ref: ref, signatures: files}, nil), nil
	}
	dir, err := os.MkdirTemp("", "kimg-signatures-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for n, data := range files {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("signature-%d", n+1)), data, 0o600); err != nil {
			return nil, err
		}
	}
	place, err := directory.NewReference(dir)
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
