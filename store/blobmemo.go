package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/strict"
)

// KnownBlob is a compressed form of a layer that was made before: with the same settings it comes out again.
type KnownBlob struct {
	DiffID    digest.Digest `json:"diffID"`    // of the uncompressed tar
	Algorithm string        `json:"algorithm"` // gzip, zstd or zstd:chunked
	Level     int           `json:"level"`     // as it was asked for; 0: the algorithm's default
	Digest    digest.Digest `json:"digest"`    // of the blob
	Size      int64         `json:"size"`      // of the blob, in bytes

	TOC string `json:"toc,omitempty"` // of zstd:chunked: the annotations that say where in the blob things are, as JSON
}

// same tells whether two were made from the same tar with the same settings.
func (b KnownBlob) same(o KnownBlob) bool {
	return b.DiffID == o.DiffID && b.Algorithm == o.Algorithm && b.Level == o.Level
}

const (
	memoKey    = "kimg-blobs" // of the layer's big data
	memoSchema = 1
	maxMemo    = 16 // blobs a layer remembers; the oldest go
	maxMemoDoc = 16 << 10
)

type memo struct {
	Schema int         `json:"schema"`
	Blobs  []KnownBlob `json:"blobs"` // the newest first
}

// KnownBlobs returns the compressed forms that a layer remembers, the newest first. A container's own layer remembers what
// it was when the container was committed. The memo only saves work: one that is damaged is none, with a line in the log.
func (s *Store) KnownBlobs(ctx context.Context, layerID string) ([]KnownBlob, error) {
	if err := check(ctx); err != nil {
		return nil, err
	}
	l, err := s.st.Layer(layerID)
	if err != nil {
		return nil, wrap("layer "+kimg.Quote(layerID), err)
	}
	if !slices.Contains(l.BigDataNames, memoKey) {
		return nil, nil
	}
	known, err := s.readMemo(l.ID)
	if err != nil {
		s.log.WarnContext(ctx, "the memo of a layer's compressed forms is damaged; it is made again", "layer", l.ID, "error", err)
	}
	return known, nil
}

func (s *Store) readMemo(id string) ([]KnownBlob, error) {
	r, err := s.st.LayerBigData(id, memoKey)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxMemoDoc+1))
	if err == nil {
		err = strict.Size("", int64(len(data)), maxMemoDoc)
	}
	var m memo
	if err == nil {
		err = strict.UnmarshalExact(data, &m)
	}
	if err == nil && m.Schema != memoSchema || len(m.Blobs) > maxMemo {
		err = kimg.Errorf(kimg.ErrInvalid, "", "schema %d with %d blobs", m.Schema, len(m.Blobs))
	}
	for _, b := range m.Blobs {
		if err == nil {
			err = errors.Join(strict.Digest(b.DiffID.String()), strict.Digest(b.Digest.String()))
		}
		if err == nil && (b.Size <= 0 || !slices.Contains([]string{"gzip", "zstd", "zstd:chunked"}, b.Algorithm)) {
			err = kimg.Errorf(kimg.ErrInvalid, "", "a blob of %d bytes, compressed with %s", b.Size, kimg.Quote(b.Algorithm))
		}
	}
	if err != nil {
		return nil, err
	}
	return m.Blobs, nil
}

// RememberBlobs adds to the memos of layers, by their ids, what was made and verified; what was made with the same settings
// before is replaced, and one without a Digest only forgotten. Layers that are gone or that cannot be written (of additional stores)
// remember nothing.
func (s *Store) RememberBlobs(ctx context.Context, made map[string][]KnownBlob) error {
	return s.Change(ctx, "remember blobs", func(ctx context.Context, tx *Tx) error {
		for id, blobs := range made {
			if l, err := s.st.Layer(id); err != nil || l.ReadOnly {
				continue
			}
			before, err := s.KnownBlobs(ctx, id)
			if err != nil {
				return err
			}
			tx.Record("layer "+id, func(context.Context) error {
				tx.Undo(func(context.Context) error { return s.writeMemo(id, before) })
				return s.writeMemo(id, merged(before, blobs))
			})
		}
		return nil
	})
}

// LockBlob waits until nobody else, with this store or another process's, holds the lock for making this compressed form of a layer; DiffID, Algorithm
// and Level say which. The wait ends when ctx does. The caller calls unlock.
func (s *Store) LockBlob(ctx context.Context, b KnownBlob) (unlock func(), err error) {
	return s.lockDigest(ctx, digest.FromString(fmt.Sprint("kimg-blob ", b.DiffID, " ", b.Algorithm, " ", b.Level)))
}

// LayersWith returns the ids of the layers of images that have a diffID.
func (s *Store) LayersWith(ctx context.Context, diffID digest.Digest) ([]string, error) {
	if err := check(ctx); err != nil {
		return nil, err
	}
	layers, err := s.st.LayersByUncompressedDigest(diffID)
	if err != nil && !errors.Is(err, storage.ErrLayerUnknown) {
		return nil, wrap("layers", err)
	}
	var ids []string
	for _, l := range layers {
		ids = append(ids, l.ID)
	}
	return ids, nil
}

// merged puts what was made in front of what was known.
func merged(known, made []KnownBlob) []KnownBlob {
	all := []KnownBlob{}
	for _, b := range made {
		if b.Digest != "" {
			all = append(all, b)
		}
	}
	for _, b := range known {
		if !slices.ContainsFunc(made, b.same) {
			all = append(all, b)
		}
	}
	return all[:min(len(all), maxMemo)]
}

func (s *Store) writeMemo(id string, blobs []KnownBlob) error {
	data, err := json.Marshal(memo{memoSchema, blobs})
	if err != nil {
		return err
	}
	return wrap("layer "+id, s.st.SetLayerBigData(id, memoKey, bytes.NewReader(data)))
}
