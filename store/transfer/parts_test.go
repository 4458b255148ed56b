package transfer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/containers/storage"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/transfer"
)

// chunked is a layer of zstd:chunked with a file of zeros and one whose only part frame returns.
func chunked(t *testing.T, name, content string, frame func(ctx context.Context, packed []byte) io.ReadCloser) (l transfer.Layer) {
	t.Helper()
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	const hole = 512 << 10
	must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: hole}))
	first := plain.Len()
	_, err := w.Write(make([]byte, hole))
	must(t, err)
	must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "g", Mode: 0o644, Size: int64(len(content))}))
	header := plain.Len()
	_, err = io.WriteString(w, content)
	must(t, err)
	must(t, w.Close())
	layer := plain.Bytes()

	z, err := zstd.NewWriter(nil)
	must(t, err)
	packed := z.EncodeAll([]byte(content), nil)
	var record bytes.Buffer
	entries := json.NewEncoder(&record)
	must(t, entries.Encode(map[string]any{"type": 2, "payload": layer[:first]}))
	must(t, entries.Encode(map[string]any{"type": 1, "name": name, "size": hole, "payload": nil}))
	must(t, entries.Encode(map[string]any{"type": 2, "payload": layer[first+hole : header]}))
	must(t, entries.Encode(map[string]any{"type": 1, "name": "g", "size": len(content), "payload": nil}))
	must(t, entries.Encode(map[string]any{"type": 2, "payload": layer[header+len(content):]}))
	split := z.EncodeAll(record.Bytes(), nil)
	table := z.EncodeAll(fmt.Appendf(nil, `{"version":1,"entries":[{"type":"reg","name":%q,"size":%d,"digest":%[3]q,"chunkSize":%[2]d,"chunkType":"zeros"},
		{"type":"reg","name":"g","size":%[4]d,"digest":%[3]q,"offset":0,"endOffset":%[5]d}],"tarSplitDigest":%[6]q}`,
		name, hole, digest.FromString(content), len(content), len(packed), digest.FromBytes(split)), nil)
	blob := z.EncodeAll(layer, nil) // as a whole it has no table, for which nobody looks then
	l = transfer.Layer{
		Digest: digest.FromBytes(blob), Size: 1 << 20, DiffID: digest.FromBytes(layer), TOC: digest.FromBytes(table),
		Annotations: map[string]string{
			"io.github.containers.zstd-chunked.manifest-position": fmt.Sprintf("%d:%d:1:1", 100_000, len(table)),
			"io.github.containers.zstd-chunked.tarsplit-position": fmt.Sprintf("%d:%d:1", 100_000+len(table), len(split)),
		},
		Sections: func(ctx context.Context, parts []transfer.Section) (io.ReadCloser, error) {
			if parts[0].Offset > 0 {
				return io.NopCloser(io.MultiReader(bytes.NewReader(table), bytes.NewReader(split))), nil
			}
			return frame(ctx, packed), nil
		},
	}
	return l
}

// partsStore is a store that wants parts of layers.
func partsStore(t *testing.T) (st *store.Store, staged func() []string) {
	t.Helper()
	dir := newStore(t, "overlay").root // which removes it
	lib, err := storage.GetStore(storage.StoreOptions{GraphRoot: dir + "/parts", RunRoot: dir + "/run2", GraphDriverName: "overlay",
		PullOptions: map[string]string{"enable_partial_images": "true"}})
	must(t, err)
	t.Cleanup(func() {
		_, err := lib.Shutdown(true)
		must(t, err)
	})
	return store.Wrap(lib), func() []string {
		names, err := filepath.Glob(dir + "/parts/overlay/staging/*/*")
		must(t, err)
		return names
	}
}

// stalled sends nothing until it is told to end.
type stalled struct{ ctx context.Context }

func (s stalled) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, context.Cause(s.ctx)
}

// TestPartsThatFail: what was put together in vain is gone when the layer is fetched as a whole, and of a registry that stalls nothing
// is awaited.
func TestPartsThatFail(t *testing.T) {
	whole := errors.New("it is fetched as a whole")
	for name, c := range map[string]struct {
		file  string
		other bool // the configuration names another layer
		frame func(ctx context.Context, packed []byte) io.ReadCloser
		want  error
	}{
		"well":    {"f", false, func(_ context.Context, p []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(p)) }, nil},
		"another": {"f", true, func(_ context.Context, p []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(p)) }, whole},
		"cut":     {"f", false, func(_ context.Context, p []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(p[:5])) }, whole},
		"stalled": {"../f", false, func(ctx context.Context, _ []byte) io.ReadCloser { return io.NopCloser(stalled{ctx}) }, whole},
	} {
		t.Run(name, func(t *testing.T) {
			st, staged := partsStore(t)
			l := chunked(t, c.file, "some content", c.frame)
			if c.other {
				l.DiffID = digest.FromString("another")
			}
			l.Open = func(context.Context) (io.ReadCloser, int64, error) {
				if left := staged(); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
				return nil, 0, whole
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := st.Change(ctx, "test", func(ctx context.Context, tx *store.Tx) error {
				_, err := transfer.Layers(ctx, tx, []transfer.Layer{l}, transfer.Options{})
				return err
			})
			if !errors.Is(err, c.want) {
				t.Errorf("%v", err)
			}
		})
	}
}
