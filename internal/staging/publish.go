//go:build linux

package staging

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/cleanup"
	"github.com/kimg/kimg/internal/safeopen"
)

// Publisher gives staged files their names. Every step can be taken back, as long as its area is not closed.
type Publisher struct {
	area *Area
	undo cleanup.Stack
	step func() error // of a test: fails or kills before a step; may be nil
}

// Publish begins to publish from the area. step is called before each step and can refuse it; nil: nobody asks.
func (a *Area) Publish(step func() error) *Publisher { return &Publisher{area: a, step: step} }

func (p *Publisher) before() error {
	if p.step == nil {
		return nil
	}
	return p.step()
}

// Dir makes a directory unless it is there. Anything else of that name is class unsafe.
func (p *Publisher) Dir(path string) error {
	if err := p.before(); err != nil {
		return err
	}
	switch info, err := os.Lstat(path); {
	case err == nil && !info.IsDir():
		return kimg.Errorf(kimg.ErrUnsafe, path, "not a directory")
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	p.undo.Add(func(context.Context) error { return os.Remove(path) })
	return nil
}

// Place moves a staged file to path, in one instant also for those who look at path meanwhile. What was there is kept for
// [Publisher.TakeBack]; anything there but a regular file is class unsafe.
func (p *Publisher) Place(file, path string) error {
	if err := p.before(); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.Rename(file, path); err != nil {
			return err
		}
		p.undo.Add(func(context.Context) error { return os.Remove(path) })
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return kimg.Errorf(kimg.ErrUnsafe, path, "not a regular file")
	}
	old := p.area.name()
	if err := os.Link(path, old); err != nil {
		if err := duplicate(path, old, info.Mode()); err != nil { // a file system without hard links
			return err
		}
	}
	if err := os.Rename(file, path); err != nil {
		return err
	}
	p.undo.Add(func(context.Context) error { return os.Rename(old, path) })
	return nil
}

// Write places a new file with the given content.
func (p *Publisher) Write(path string, data []byte) error {
	f, err := p.area.File()
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && p.area.durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return p.Place(f.Name(), path)
}

// Away moves a file out of sight; it goes when the area is closed.
func (p *Publisher) Away(path string) error {
	if err := p.before(); err != nil {
		return err
	}
	old := p.area.name()
	if err := os.Rename(path, old); err != nil {
		return err
	}
	p.undo.Add(func(context.Context) error { return os.Rename(old, path) })
	return nil
}

// SyncDirs makes the names in directories durable.
func (p *Publisher) SyncDirs(dirs ...string) error {
	if err := p.before(); err != nil || !p.area.durable {
		return err
	}
	for _, dir := range dirs {
		if err := safeopen.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// TakeBack takes every step back, last first, and returns the failure that made it necessary. When that fails too, the
// class is damaged.
func (p *Publisher) TakeBack(ctx context.Context, failure error) error {
	if err := p.undo.Run(ctx); err != nil {
		return kimg.Errorf(kimg.ErrDamaged, "", "%w; what was written could not all be taken back: %v", failure, err)
	}
	return failure
}

// Undo takes every step back, last first.
func (p *Publisher) Undo(ctx context.Context) error { return p.undo.Run(ctx) }

func duplicate(path, to string, mode os.FileMode) error {
	in, err := safeopen.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode.Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// MakeDirs makes path and the directories above it that are missing, and returns those it made, outermost first. After
// an error none is left.
func MakeDirs(path string) (made []string, err error) {
	for dir := filepath.Clean(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			return nil, kimg.Errorf(kimg.ErrExists, dir, "something that is not a directory")
		}
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		made = append([]string{dir}, made...)
	}
	for i, dir := range made {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			RemoveDirs(made[:i])
			return nil, err
		}
	}
	return made, nil
}

// RemoveDirs removes directories that [MakeDirs] made, unless somebody has put something there since.
func RemoveDirs(made []string) {
	for i := len(made) - 1; i >= 0; i-- {
		_ = os.Remove(made[i])
	}
}
