package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
)

// meeting is an image whose signatures come when those of another one were asked for, too.
type meeting struct {
	types.UnparsedImage
	ref  types.ImageReference
	here func()
	all  <-chan struct{}
}

func (m meeting) Reference() types.ImageReference { return m.ref }

func (meeting) Manifest(context.Context) ([]byte, string, error) { return nil, "", nil }

func (m meeting) Signatures(ctx context.Context) ([][]byte, error) {
	m.here()
	select {
	case <-m.all:
		return nil, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Nobody waits for the signatures of somebody else's image: its registry may be slow, and waiting looks like a silent registry.
func TestPolicySideBySide(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "policy.json")
	check(t, os.WriteFile(file, []byte(`{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":"aGk="}]}`), 0o600))
	c := converter(t, Options{Sys: &types.SystemContext{SignaturePolicyPath: file}})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var here, done sync.WaitGroup
	here.Add(2)
	all := make(chan struct{})
	go func() { here.Wait(); close(all) }()
	for range 2 {
		done.Go(func() {
			m := meeting{ref: ref(t, "dir:"+dir), here: here.Done, all: all}
			if err := c.policy.allow(ctx, m); !errors.Is(err, kimg.ErrDenied) {
				t.Error(err)
			}
		})
	}
	done.Wait()
}
