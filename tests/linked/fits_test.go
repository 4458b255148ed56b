package linked

import (
	"github.com/containers/image/v5/types"
	"github.com/containers/storage"

	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/store"
)

// A tool's own types fit without a conversion. make podman-module compiles this with the types that today's podman has.
var (
	_ func(storage.Store) *store.Store                                         = store.Wrap
	_ func(*store.Store) storage.Store                                         = (*store.Store).Storage
	_ func(*store.Store, string, commit.Options) (types.ImageReference, error) = commit.Reference
)
