package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/containers/image/v5/image"
	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/types"
	"github.com/containers/storage/pkg/homedir"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
)

// PolicyFile returns the signature policy file that is in force: the one of sys, which may be nil, else the user's, else the
// system's. Empty: there is none, and everything is accepted.
func PolicyFile(sys *types.SystemContext) string {
	if sys != nil && sys.SignaturePolicyPath != "" {
		return sys.SignaturePolicyPath
	}
	for _, file := range []string{filepath.Join(homedir.Get(), ".config/containers/policy.json"), "/etc/containers/policy.json"} {
		if _, err := os.Stat(file); err == nil {
			return file
		}
	}
	return ""
}

// policy is the signature policy, read when it is first needed. Images are judged side by side.
type policy struct {
	sys *types.SystemContext

	mu sync.Mutex
	is *signature.Policy
}

// allow checks that the policy accepts an image, or one instance of an index.
func (p *policy) allow(ctx context.Context, img types.UnparsedImage) error {
	is, err := p.read()
	if err != nil {
		return err
	}
	pc, err := signature.NewPolicyContext(is) // of its own: one does one thing at a time
	if err != nil {
		return err
	}
	defer func() { _ = pc.Destroy() }() // it holds nothing
	ok, err := pc.IsRunningImageAllowed(ctx, img)
	if ok {
		return nil
	}
	var verdict signature.PolicyRequirementError
	if !errors.As(err, &verdict) { // a signature is wrong, or something could not be read: what was read once is not read again
		if _, _, err := img.Manifest(ctx); err != nil {
			return err
		}
		if _, err := img.Signatures(ctx); err != nil {
			return err
		}
	}
	return &kimg.Error{Class: kimg.ErrDenied, Err: fmt.Errorf("the signature policy does not accept the image: %w", err)}
}

func (p *policy) read() (*signature.Policy, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.is != nil {
		return p.is, nil
	}
	is := &signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}}
	if file := PolicyFile(p.sys); file != "" {
		var err error
		if is, err = signature.NewPolicyFromFile(file); err != nil {
			if c := kimg.ClassOf(err); c != kimg.ErrInternal {
				return nil, kimg.Wrap(file, err)
			}
			return nil, kimg.Errorf(kimg.ErrInvalid, file, "%w", err)
		}
	}
	p.is = is
	return is, nil
}

// judge asks the policy about an image, or about one instance of its index. The store's own images need no leave.
func (c *Converter) judge(ctx context.Context, ref types.ImageReference, src Source, instance *digest.Digest) error {
	switch from := src.(type) {
	case *stored:
		return nil
	case *remoteSource: // the library's own source knows every kind of signature
		return from.Ask(ctx, func(ctx context.Context, src types.ImageSource) error {
			return c.policy.allow(ctx, image.UnparsedInstance(src, instance))
		})
	}
	img, err := newJudged(ctx, ref, src, instance)
	if err != nil {
		return err
	}
	return c.policy.allow(ctx, img)
}

// judged is an image of a file or directory, or an instance of its index, as the policy sees it: the very bytes that are copied, under the
// name the user gave.
type judged struct {
	*image.UnparsedImage // of the signatures

	ref      types.ImageReference
	src      Source
	instance *digest.Digest
}

func newJudged(ctx context.Context, ref types.ImageReference, src Source, instance *digest.Digest) (judged, error) {
	var files [][]byte
	var err error
	if from, ok := src.(signedSource); ok {
		files, err = from.Signatures(ctx, named(instance))
	}
	j := judged{ref: ref, src: src, instance: instance}
	if err == nil {
		j.UnparsedImage, err = understand(ctx, ref, files)
	}
	return j, err
}

func named(instance *digest.Digest) digest.Digest {
	if instance == nil {
		return ""
	}
	return *instance
}

func (j judged) Reference() types.ImageReference { return j.ref }

func (j judged) Manifest(ctx context.Context) (data []byte, mediaType string, err error) {
	if j.instance == nil {
		data, err = j.src.Manifest(ctx)
	} else {
		data, err = j.src.ManifestByDigest(ctx, *j.instance)
	}
	return data, manifest.GuessMIMEType(data), err
}
