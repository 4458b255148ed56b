package main

import (
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg/layerdiff"
)

// layerJSON is one layer in results.
type layerJSON struct {
	DiffID  digest.Digest `json:"diffID"`
	Size    int64         `json:"size"` // of the uncompressed tar, in bytes
	Entries int           `json:"entries"`
	Empty   bool          `json:"empty"`
	LeftOut []skipJSON    `json:"leftOut"`
}

// skipJSON is a file that is not in a layer.
type skipJSON struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

func newLayerJSON(b layerdiff.Blob) layerJSON {
	l := layerJSON{DiffID: b.DiffID, Size: b.Size, Entries: b.Entries, Empty: b.Empty, LeftOut: []skipJSON{}}
	for _, skip := range b.LeftOut {
		l.LeftOut = append(l.LeftOut, skipJSON{skip.Path, skip.Reason})
	}
	return l
}
