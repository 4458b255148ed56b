package store

import (
	"cmp"
	"context"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg/internal/streamio"
)

// WantsParts tells whether the store's configuration asks to fetch only those parts of layers that the store does not have:
// enable_partial_images in the pull_options of storage.conf.
func (tx *Tx) WantsParts() bool {
	return strings.EqualFold(tx.s.st.PullOptions()["enable_partial_images"], "true")
}

// FileSum is a regular file of a layer, as a table of contents knows it.
type FileSum struct {
	Name   string // in the layer
	Size   int64  // in bytes
	Digest digest.Digest
}

// Alike are the directories of layers that have much in common with another one.
type Alike struct{ dirs dirFiles }

// The number of files by which layers are chosen, and of layers that are.
const (
	alikeFiles  = 64
	alikeLayers = 4
)

// Alike finds the layers of the store, of driver overlay, in which most files have a name and a size that they have in a new one. They
// need not have been fetched in parts themselves. The caller closes it.
func (tx *Tx) Alike(ctx context.Context, files []FileSum) (*Alike, error) {
	a := &Alike{}
	if tx.s.st.GraphDriverName() != overlay || tx.s.canWalk() != nil || len(files) == 0 {
		return a, nil
	}
	layers, err := tx.s.st.Layers()
	if err != nil {
		return nil, wrap("store", err)
	}
	type found struct {
		dir   string
		alike int
	}
	var all []found
	for _, l := range layers {
		if err := check(ctx); err != nil {
			return nil, err
		}
		dirs, err := tx.s.dirsOf(l.ID)
		if err != nil {
			continue // a damaged layer is for whoever uses it
		}
		one, err := openDirs([]string{dirs.Upper})
		if err != nil {
			continue
		}
		n := 0
		for i := range min(alikeFiles, len(files)) {
			f := files[i*len(files)/min(alikeFiles, len(files))]
			if opened, err := one.file(f); err == nil {
				n++
				opened.Close()
			}
		}
		one.close()
		if n > 0 {
			all = append(all, found{dirs.Upper, n})
		}
	}
	slices.SortStableFunc(all, func(x, y found) int { return cmp.Compare(y.alike, x.alike) })
	var dirs []string
	for _, f := range all[:min(alikeLayers, len(all))] {
		dirs = append(dirs, f.dir)
	}
	a.dirs, err = openDirs(dirs)
	return a, err
}

// file opens a file that has the name and the size.
func (d dirFiles) file(want FileSum) (*os.File, error) {
	fd, err := d.open(want.Name)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "a file of a layer")
	info, err := f.Stat()
	if err == nil && info.Size() != want.Size {
		err = notAsMade(want.Name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Find returns what opens a file that one of the layers has, when its content was read and compared with the digest; nil when none has it.
func (a *Alike) Find(ctx context.Context, want FileSum) (open func() (*os.File, error), err error) {
	for i := range a.dirs {
		dir := a.dirs[i : i+1]
		f, err := dir.file(want)
		if err != nil {
			continue
		}
		v, err := streamio.NewVerifier(streamio.WithContext(ctx, f), want.Size, want.Digest)
		if err == nil {
			_, err = streamio.Copy(io.Discard, v)
		}
		f.Close()
		if err == nil {
			return func() (*os.File, error) { return dir.file(want) }, nil
		} else if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return nil, nil
}

// Close closes the directories.
func (a *Alike) Close() { a.dirs.close() }
