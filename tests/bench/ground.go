package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

// ground is a directory of this run's own where things are measured. It is locked while the run lives, so that the next run
// knows what a dead one left.
type ground struct {
	dir  string
	lock *os.File
	rows int // that were measured here
}

// newGround makes a ground below parent, and removes those of the dead there. The caller removes it.
func newGround(parent string) (*ground, error) {
	old, err := filepath.Glob(filepath.Join(parent, "kimg-bench-*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range old {
		if g, err := locked(dir); err == nil {
			if err := g.remove(); err != nil {
				return nil, err
			}
		}
	}
	fresh, err := os.MkdirTemp(parent, "new-kimg-bench-")
	if err != nil {
		return nil, err
	}
	g, err := locked(fresh)
	if err != nil {
		return nil, errors.Join(err, os.Remove(fresh))
	}
	g.dir = filepath.Join(parent, strings.TrimPrefix(filepath.Base(fresh), "new-"))
	return g, os.Rename(fresh, g.dir) // locked first: nobody takes it for a dead one's
}

// locked fails for what is not a directory, is somebody else's, or has an owner that lives.
func locked(dir string) (*ground, error) {
	f, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &ground{dir: dir, lock: f}, nil
}

// remove takes away the ground with all that is mounted in it.
func (g *ground) remove() error {
	defer g.lock.Close()
	return removeTree(g.dir)
}

// removeTree removes a tree with all that is mounted in it.
func removeTree(dir string) error {
	if testenv.IsRoot() { // an ordinary user's mounts end with their namespace
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			return err
		}
		for _, line := range slices.Backward(strings.Split(string(mounts), "\n")) {
			if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
				_ = unix.Unmount(f[1], unix.MNT_DETACH) // the removal tells
			}
		}
	}
	_, err := timed(context.Background(), nil, lab.Unshared("rm", "-rf", dir)...)
	return err
}
