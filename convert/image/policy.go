package image

import (
	"context"
	"io"
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

// policy is the signature policy, read when it is first needed.
type policy struct {
	sys *types.SystemContext

	mu sync.Mutex // a PolicyContext does one thing at a time
	pc *signature.PolicyContext
}

// allow checks that the policy accepts an image, or one instance of its index.
func (p *policy) allow(ctx context.Context, src types.ImageSource, instance *digest.Digest) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.open(); err != nil {
		return err
	}
	if ok, err := p.pc.IsRunningImageAllowed(ctx, image.UnparsedInstance(src, instance)); !ok {
		if c := kimg.ClassOf(err); c != kimg.ErrInternal {
			return err // reading it failed
		}
		return kimg.Errorf(kimg.ErrDenied, "", "the signature policy does not accept the image: %w", err)
	}
	return nil
}

func (p *policy) open() error {
	if p.pc != nil {
		return nil
	}
	what := &signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}}
	if file := PolicyFile(p.sys); file != "" {
		var err error
		if what, err = signature.NewPolicyFromFile(file); err != nil {
			if c := kimg.ClassOf(err); c != kimg.ErrInternal {
				return kimg.Wrap(file, err)
			}
			return kimg.Errorf(kimg.ErrInvalid, file, "%w", err)
		}
	}
	pc, err := signature.NewPolicyContext(what)
	p.pc = pc
	return err
}

func (p *policy) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pc == nil {
		return nil
	}
	pc := p.pc
	p.pc = nil
	return pc.Destroy()
}

// judged is a source as the policy sees it: its manifest and its signatures under the name the user gave.
type judged struct {
	Source
	ref types.ImageReference
}

func (j judged) Reference() types.ImageReference { return j.ref }

func (j judged) GetManifest(ctx context.Context, instance *digest.Digest) ([]byte, string, error) {
	var data []byte
	var err error
	if instance == nil {
		data, err = j.Manifest(ctx)
	} else {
		data, err = j.ManifestByDigest(ctx, *instance)
	}
	return data, manifest.GuessMIMEType(data), err
}

// GetSignatures implements types.ImageSource. Those of instances are not kept in files.
func (j judged) GetSignatures(ctx context.Context, instance *digest.Digest) ([][]byte, error) {
	if instance != nil {
		return nil, nil
	}
	return j.Signatures(ctx)
}

func (j judged) GetBlob(ctx context.Context, info types.BlobInfo, _ types.BlobInfoCache) (io.ReadCloser, int64, error) {
	return j.Blob(ctx, info.Digest)
}

func (judged) HasThreadSafeGetBlob() bool { return true }

func (judged) LayerInfosForCopy(context.Context, *digest.Digest) ([]types.BlobInfo, error) {
	return nil, nil
}
