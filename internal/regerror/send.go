package regerror

import (
	"context"
	"io"

	"github.com/containers/image/v5/types"
)

// Send puts a blob to a registry, once: what was read cannot be read again. As long as the registry takes it, it is not idle.
func (p Patience) Send(ctx context.Context, to types.ImageDestination, r io.Reader, blob types.BlobInfo, seen types.BlobInfoCache) (types.BlobInfo, error) {
	ctx, alive, stop := p.Watch(ctx)
	defer stop()
	info, err := to.PutBlob(ctx, &lively{r, alive}, blob, seen, false)
	return info, Because(ctx, err)
}

// lively is a stream that is read on: the registry takes it.
type lively struct {
	io.Reader
	alive func()
}

func (l *lively) Read(p []byte) (int, error) {
	l.alive()
	defer l.alive()
	return l.Reader.Read(p)
}
