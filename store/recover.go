package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containers/image/v5/manifest"
	"github.com/containers/storage"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/failpoint"
)

const (
	recoverWait  = 10 * time.Second // for another process that recovers right now
	tempAge      = time.Minute      // an intent still without a name this old belongs to nobody
	stagingAge   = time.Hour        // a staging directory of another tool this old may be looked into
	failedPrefix = "failed-"
)

// recover takes back or completes what killed processes left: changes whose intent nobody holds, and staging
// directories nobody fills. Usually that is two look-ups that find nothing. A failure is logged and left to the next time:
// it must not keep anybody from reading the store.
func (s *Store) recover() {
	if err := guarded("", func() error { return s.recoverIntents(context.Background()) }); err != nil {
		s.log.Warn("could not clear what a killed process left", "store", s.st.GraphRoot(), "error", err)
	}
	if err := s.pruneStaging(); err != nil {
		s.log.Warn("could not remove a stale staging directory", "store", s.st.GraphRoot(), "error", err)
	}
}

func (s *Store) recoverIntents(ctx context.Context) error {
	files, err := s.intentFiles()
	if err != nil || len(files) == 0 {
		return err
	}
	if files, err = onlyDead(files); err != nil || len(files) == 0 {
		return err
	}
	// One at a time: a recovering process must not take a change that is being recovered for a living one.
	lock, err := s.lockRecovery()
	if err != nil {
		return err
	}
	defer lock.Close()
	if files, err = s.intentFiles(); err != nil {
		return err
	}
	var errs []error
	for _, path := range files {
		errs = append(errs, s.recoverFile(ctx, path))
	}
	return errors.Join(errs...)
}

func onlyDead(files []string) ([]string, error) {
	var dead []string
	for _, path := range files {
		f, err := openIntent(path)
		if f == nil && err == nil {
			continue
		}
		if err != nil {
			return nil, err
		}
		alive, err := held(f)
		f.Close()
		if err != nil {
			return nil, err
		}
		if !alive {
			dead = append(dead, path)
		}
	}
	return dead, nil
}

// lockRecovery waits for the lock that lets one process recover at a time. Closing the file gives it back.
func (s *Store) lockRecovery() (*os.File, error) {
	return waitLock(filepath.Join(s.intentDir(), "recover.lock"), recoverWait)
}

// recoverFile recovers one intent, unless its change is alive.
func (s *Store) recoverFile(ctx context.Context, path string) error {
	f, err := openIntent(path)
	if f == nil {
		return err
	}
	defer f.Close()
	unnamed := strings.HasPrefix(filepath.Base(path), ".new-")
	if info, err := f.Stat(); err != nil || unnamed && time.Since(info.ModTime()) <= tempAge {
		return err // whoever makes it may be about to lock it
	}
	if err := lockFile(f); errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return nil
	} else if err != nil {
		return err
	}
	if unnamed {
		return removeIfThere(path)
	}
	if err := failpoint.Here("recover.begin"); err != nil {
		return err
	}
	in, err := readIntent(f)
	if errors.Is(err, os.ErrNotExist) {
		return nil // its change has ended since it was opened
	}
	if err != nil {
		return s.giveUp(path, err)
	}
	in.s, in.path = s, path
	if err := s.recoverIntent(ctx, &in); err != nil {
		return err
	}
	if err := s.sync(); err != nil {
		return err
	}
	if err := failpoint.Here("recover.end"); err != nil {
		return err
	}
	return removeIfThere(path)
}

// giveUp keeps an intent nobody can recover for kimg check and for people, out of the way of the next Open.
func (s *Store) giveUp(path string, why error) error {
	s.log.Error("an interrupted change cannot be recovered; run kimg check", "file", path, "error", why)
	return os.Rename(path, filepath.Join(filepath.Dir(path), failedPrefix+filepath.Base(path)))
}

// recoverIntent completes a change that has removed its container, drops one that had happened as a whole, and takes
// back any other.
func (s *Store) recoverIntent(ctx context.Context, in *intent) error {
	forward, complete, torn := false, true, false
	for _, st := range in.Steps {
		done, final := s.stepDone(st)
		forward = forward || final
		complete = complete && done
		torn = torn || !s.layerWhole(st.Layer) || !s.layerWhole(st.RW) && st.Create != ""
	}
	recorded := strings.HasPrefix(filepath.Base(in.path), recordedPrefix)
	switch {
	case complete || recorded && !forward && !torn:
		return nil
	case forward:
		s.log.Info("completing an interrupted change", "op", in.Op)
		for _, st := range in.Steps {
			if err := s.completeStep(ctx, st); err != nil {
				if errors.Is(err, storage.ErrLayerUnknown) && recorded {
					return nil // it had happened; somebody has removed the image since
				}
				if errors.Is(err, storage.ErrLayerUnknown) {
					return s.giveUp(in.path, err)
				}
				return err
			}
			if err := failpoint.Here("recover.step"); err != nil {
				return err
			}
		}
		return nil
	}
	s.log.Info("taking back an interrupted change", "op", in.Op)
	for _, st := range slices.Backward(in.Steps) {
		if err := s.undoStep(ctx, st, in); err != nil {
			return err
		}
		if err := failpoint.Here("recover.step"); err != nil {
			return err
		}
	}
	return nil
}

// stepDone tells whether a step has happened, and whether it can not be taken back any more.
func (s *Store) stepDone(st intentStep) (done, final bool) {
	switch {
	case st.Layer != "":
		return s.layerExists(st.Layer) && s.layerWhole(st.Layer), false
	case st.Held != "":
		return st.Kept || !s.layerExists(st.Held), false
	case st.Create != "":
		return s.containerExists(st.Create) && s.hasStateFile(st.Create) && s.layerWhole(st.RW), false
	case st.Remove != "":
		// The library removes the layer first: with it, the content is gone.
		return !s.containerExists(st.Remove), !s.layerExists(st.RW)
	case st.Delete != "":
		img, err := s.exactImage(st.Delete)
		gone := err == nil && img == nil
		return gone && !slices.ContainsFunc(st.Layers, s.layerExists), gone
	case st.Image != nil:
		p := st.Image.put(s)
		img, err := s.exactImage(p.rec.ID())
		if err != nil || img == nil {
			return false, false
		}
		md, err := manifest.Digest(p.rec.Manifest)
		current, done := img.BigDataDigests[storage.ImageDigestBigDataKey]
		if p.rec.edited() {
			done = done && err == nil && current == md
		} else {
			done = done && err == nil && slices.Contains(img.BigDataNames, manifestKey(md))
		}
		for _, name := range p.names {
			done = done && slices.Contains(img.Names, name)
		}
		return done, false
	}
	return true, false
}

// layerWhole tells whether the overlay driver's own file about a layer was written before the power went. The content is
// synced before a layer is recorded; this file is written while it is, so after a power cut it can be there and empty.
func (s *Store) layerWhole(id string) bool {
	if id == "" || s.st.GraphDriverName() != overlay {
		return true
	}
	info, err := os.Stat(filepath.Join(s.rootOf(id), overlay, id, "link"))
	return errors.Is(err, os.ErrNotExist) || err == nil && info.Size() > 0
}

// dropTornLink removes what a power cut left of the driver's file about a layer, and the link that it should name. With
// that file there and empty, the driver would remove the links of all layers together with the layer.
func (s *Store) dropTornLink(id string) error {
	if s.layerWhole(id) {
		return nil
	}
	home := filepath.Join(s.rootOf(id), overlay)
	links, err := os.ReadDir(filepath.Join(home, "l"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, l := range links {
		path := filepath.Join(home, "l", l.Name())
		if target, err := os.Readlink(path); err == nil && target == filepath.Join("..", id, "diff") {
			if err := removeIfThere(path); err != nil {
				return err
			}
		}
	}
	return removeIfThere(filepath.Join(home, id, "link"))
}

// rootOf tells which of the store's two roots holds a layer's directory.
func (s *Store) rootOf(id string) string {
	if _, err := os.Stat(filepath.Join(s.imageRoot(), overlay, id)); err == nil {
		return s.imageRoot()
	}
	return s.st.GraphRoot()
}

// put turns an intent back into what it was made from.
func (i *intentImage) put(s *Store) *imagePut {
	return &imagePut{s: s, names: i.Names, before: i.Before, ready: true, rec: ImageRecord{
		Config: i.Config, Manifest: i.Manifest, ManifestType: i.ManifestType, TopLayer: i.TopLayer, Names: i.Names, Created: i.Created, Signatures: i.Signatures, About: i.About, Data: i.Data, list: i.List,
	}}
}

func (s *Store) completeStep(ctx context.Context, st intentStep) error {
	switch {
	case st.Layer != "":
		_, err := s.st.Layer(st.Layer)
		return err
	case st.Remove != "":
		return s.removeContainer(ctx, st.Remove)
	case st.Delete != "":
		for _, id := range st.Layers {
			if err := s.deleteForgotten(ctx, id); err != nil {
				return err
			}
		}
	case st.Image != nil:
		p := st.Image.put(s)
		// Somebody may have moved a name since: that was later and stays.
		p.names = slices.DeleteFunc(slices.Clone(p.names), func(name string) bool {
			owner, err := s.imageNamed(name)
			if err != nil {
				return true
			}
			return owner != nil && owner.ID != p.before.Owners[name] && owner.ID != p.rec.ID()
		})
		unlock, err := p.lockEdit(ctx)
		if err != nil {
			return err
		}
		defer unlock()
		if err = p.do(ctx); p.rec.edited() && kimg.ClassOf(wrap("", err)) == kimg.ErrBusy {
			s.log.WarnContext(ctx, "a manifest list that was changed since stays as it is", "list", p.rec.ID())
			return nil
		}
		return err
	}
	return nil
}

// deleteForgotten removes a layer whose image is gone already.
func (s *Store) deleteForgotten(ctx context.Context, id string) error {
	l, err := s.st.Layer(id)
	if errors.Is(err, storage.ErrLayerUnknown) {
		return nil
	}
	if err != nil {
		return err
	}
	if l.UncompressedDigest != "" {
		unlock, err := s.lockDigest(ctx, l.UncompressedDigest)
		if err != nil {
			return err
		}
		defer unlock()
	}
	return s.deleteUnusedLayer(id, nil)
}

func (s *Store) undoStep(ctx context.Context, st intentStep, in *intent) error {
	for _, id := range []string{st.Layer, st.RW, st.Held} {
		if err := s.dropTornLink(id); err != nil {
			return err
		}
	}
	switch {
	case st.Layer != "":
		return s.release(ctx, st.Layer, st.DiffID, in)
	case st.Held != "" && st.DiffID == "":
		return s.dropLayer(st.Held)
	case st.Held != "" && !st.Kept:
		return s.release(ctx, st.Held, st.DiffID, in)
	case st.Create != "":
		if err := s.removeContainer(ctx, st.Create); err != nil {
			return err
		}
		return s.deleteUnusedLayer(st.RW, in)
	case st.Image != nil:
		p := st.Image.put(s)
		unlock, err := p.lockEdit(ctx)
		if err != nil {
			return err
		}
		defer unlock()
		return p.undo(ctx)
	}
	return nil
}
