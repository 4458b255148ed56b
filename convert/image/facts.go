package image

import (
	"bytes"
	"context"
	"encoding/json"
	"hash"
	"maps"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/layerdiff"
)

// The largest uncompressed layer and image, in bytes (failure model).
const (
	maxLayer = 64 << 30
	maxImage = 256 << 30
)

// facts are what is known of a blob after it was read and verified.
type facts struct {
	size        int64 // of the blob
	compression compression.Algorithm
	diffID      digest.Digest
	plain       int64    // bytes of the uncompressed tar
	empty       bool     // the tar has only zero bytes
	packed      packedAs // what it becomes when it is compressed anew; zero: not known
}

// packedAs is a compressed form of a blob.
type packedAs struct {
	identity
	algorithm compression.Algorithm
	toc       string // of zstd:chunked: the annotations that say where in it things are, as JSON
	level     int    // it was made with, as far as that is known
}

// annotations are those that speak of the form.
func (p packedAs) annotations() (all map[string]string) {
	if json.Unmarshal([]byte(p.toc), &all) != nil {
		return nil // it has none
	}
	return all
}

// asTOC keeps of annotations those that speak of one form of a layer.
func asTOC(annotations map[string]string) string {
	kept := maps.Clone(annotations)
	maps.DeleteFunc(kept, func(key, _ string) bool { return !convert.OfForm(key) })
	data, err := json.Marshal(kept)
	if err != nil || len(kept) == 0 {
		return ""
	}
	return string(data)
}

// tocOf is the annotation of a layer that has a table of contents.
const tocOf = "io.github.containers.zstd-chunked.manifest-checksum"

// zstdChunked is zstd with a table of contents.
const zstdChunked = compression.Algorithm(layerdiff.ZstdChunked)

// identity names some bytes.
type identity struct {
	digest digest.Digest
	size   int64
}

// memo remembers the facts of every blob by its digest.
type memo struct {
	mu   sync.Mutex
	seen map[digest.Digest]*remembered
}

// remembered is one blob of the memo. Whoever holds its turn is the only one to read the blob for its facts.
type remembered struct {
	turn  chan struct{} // holds one token when it is nobody's turn
	facts facts
	known bool
}

func newMemo() *memo { return &memo{seen: map[digest.Digest]*remembered{}} }

// take waits for the turn on a blob and returns what is known of it. The caller gives the turn back with done.
func (m *memo) take(ctx context.Context, d digest.Digest) (*remembered, error) {
	m.mu.Lock()
	r := m.seen[d]
	if r == nil {
		r = &remembered{turn: make(chan struct{}, 1)}
		r.turn <- struct{}{}
		m.seen[d] = r
	}
	m.mu.Unlock()
	select {
	case <-r.turn:
		return r, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (r *remembered) done() { r.turn <- struct{}{} }

// learn keeps facts; only whoever has the turn may call it.
func (r *remembered) learn(f facts) { r.facts, r.known = f, true }

// measure takes in an uncompressed layer and knows its diff ID, its size and whether it is empty.
type measure struct {
	h    hash.Hash // nil: the digest is known already
	n    int64
	data bool // something but zero bytes came
}

// Write implements io.Writer. Class limit when the layer is larger than any may be.
func (m *measure) Write(p []byte) (int, error) {
	if m.n += int64(len(p)); m.n > maxLayer {
		return 0, kimg.Errorf(kimg.ErrLimit, "", "too-big: more than %d bytes uncompressed", int64(maxLayer))
	}
	if m.h != nil {
		m.h.Write(p)
	}
	m.data = m.data || len(bytes.TrimLeft(p, "\x00")) > 0
	return len(p), nil
}

// facts returns what was measured of a blob.
func (m *measure) facts(blob identity, a compression.Algorithm) facts {
	f := facts{size: blob.size, compression: a, plain: m.n, empty: !m.data, diffID: blob.digest}
	if m.h != nil {
		f.diffID = digest.NewDigest(digest.SHA256, m.h)
	}
	return f
}
