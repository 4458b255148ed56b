package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/oci/layout"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/store"
)

// push copies the image the container would become with the tool's own copy.Image, its own policy and its own credentials:
// to kimg's side a container is one more types.ImageReference.
func push(ctx context.Context, st *store.Store, id string, o commit.Options, text string, insecure bool) (err error) {
	dest, err := parseDest(text)
	if err != nil {
		return err
	}
	src, err := commit.Reference(st, id, o)
	if err != nil {
		return err
	}
	policy, err := signature.NewPolicyContext(&signature.Policy{
		Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, policy.Destroy()) }()
	sys := &types.SystemContext{
		DockerInsecureSkipTLSVerify: types.NewOptionalBool(insecure),
		BlobInfoCacheDir:            filepath.Join(st.Storage().GraphRoot(), "cache"), // as podman does
	}
	written, err := copy.Image(ctx, policy, dest, src, &copy.Options{DestinationCtx: sys})
	if err != nil {
		return err
	}
	digest, err := manifest.Digest(written)
	if err != nil {
		return err
	}
	fmt.Println(text, digest)
	return nil
}

// parseDest reads the two transports this tool knows.
func parseDest(text string) (types.ImageReference, error) {
	transport, rest, _ := strings.Cut(text, ":")
	switch transport {
	case layout.Transport.Name():
		return layout.ParseReference(rest)
	case docker.Transport.Name():
		return docker.ParseReference(rest)
	}
	return nil, kimg.Errorf(kimg.ErrUnsupported, text, "not oci:DIR[:NAME] or docker://HOST/NAME")
}
