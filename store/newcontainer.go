package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/storage"
	"github.com/containers/storage/pkg/idtools"
	"github.com/containers/storage/pkg/unshare"
	"github.com/containers/storage/types"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/internal/failpoint"
	"github.com/kimg/kimg/internal/strict"
)

// ContainerOptions say how a working container is made. The zero value makes one with a generated name and no id map.
type ContainerOptions struct {
	Name      string // "": the image's name and "-working-container", with a number when that is taken
	ImageName string // by which the image was asked for; "": its first name
	UIDMap    []idtools.IDMap
	GIDMap    []idtools.IDMap
	OS        string // scratch only; "": this machine's
	Arch      string
	Variant   string
	Edit      func(*copydata.CopyData) error // changes the state before it is saved; may be nil
}

// containerMetadata is what other tools show of a container of ours.
const containerMetadata = `{"creator":"kimg"}`

const maxNames = 10_000 // generated names tried

// NewContainer makes a working container on an image, or on nothing when base is nil, with its state file. It appears
// with its state file or not at all.
func (s *Store) NewContainer(ctx context.Context, base *Image, o ContainerOptions) (*Container, error) {
	if o.Name != "" {
		if err := strict.Name(o.Name); err != nil {
			return nil, err
		}
	}
	origin, err := s.origin(ctx, base, o.ImageName)
	if err != nil {
		return nil, err
	}
	imageID := ""
	if base == nil {
		origin = copydata.Origin{OS: o.OS, Arch: o.Arch, Variant: o.Variant}
	} else {
		imageID = base.ID
	}
	id, rw := newID(), newID()
	err = s.Change(ctx, "from", func(_ context.Context, tx *Tx) error {
		tx.steps = append(tx.steps, step{
			what:   "container " + id,
			intent: func() (*intentStep, error) { return &intentStep{Create: id, RW: rw}, nil },
			do: func(ctx context.Context) error {
				tx.undo.Add(func(ctx context.Context) error { return s.unmake(ctx, id, rw) })
				return s.makeContainer(id, rw, imageID, origin, o)
			},
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	rec, err := s.st.Container(id)
	if err != nil {
		return nil, wrap("container "+id, err)
	}
	return s.container(rec), nil
}

// makeContainer makes the record under a free name, and the state file beside it.
func (s *Store) makeContainer(id, rw, imageID string, origin copydata.Origin, o ContainerOptions) error {
	if err := failpoint.Here("container.new.begin"); err != nil {
		return err
	}
	name, err := s.createNamed(id, rw, imageID, origin.ImageName, o)
	if err != nil {
		return err
	}
	if err := failpoint.Here("container.new.record"); err != nil {
		return err
	}
	if err := s.letOwnerWrite(rw); err != nil {
		return kimg.Wrap(name, err)
	}
	state, err := copydata.New(origin, id, name)
	if err != nil {
		return err
	}
	if o.Edit != nil {
		if err := o.Edit(state); err != nil {
			return err
		}
	}
	if err := state.Save(s.Dir()); err != nil {
		return err
	}
	return failpoint.Here("container.new.state")
}

// letOwnerWrite makes the container's root directory writable for the ordinary user who owns it. The library makes it
// 0555, which stops nobody inside the namespace, but that user when he comes from outside. The mode of the root directory
// is not part of a layer.
func (s *Store) letOwnerWrite(rw string) error {
	if !unshare.IsRootless() || s.canWalk() != nil {
		return nil
	}
	stack, err := s.dirsOf(rw)
	if err != nil {
		return err
	}
	info, err := os.Stat(stack.Upper)
	if err != nil {
		return err
	}
	return os.Chmod(stack.Upper, info.Mode()|0o200)
}

func (s *Store) createNamed(id, rw, imageID, imageName string, o ContainerOptions) (string, error) {
	options := &storage.ContainerOptions{IDMappingOptions: types.IDMappingOptions{
		HostUIDMapping: len(o.UIDMap) == 0, HostGIDMapping: len(o.GIDMap) == 0, UIDMap: o.UIDMap, GIDMap: o.GIDMap,
	}}
	stem := o.Name
	if stem == "" {
		stem = autoName(imageName, imageID)
	}
	for n := range maxNames {
		name := stem
		if n > 0 {
			name = fmt.Sprintf("%s-%d", stem, n)
		}
		if s.nameTaken(name) {
			if o.Name != "" {
				return "", kimg.Errorf(kimg.ErrExists, name, "the name is in use")
			}
			continue
		}
		_, err := s.st.CreateContainer(id, []string{name}, imageID, rw, containerMetadata, options)
		if errors.Is(err, storage.ErrDuplicateName) && o.Name == "" {
			continue // somebody was faster
		}
		return name, wrap("container "+name, err)
	}
	return "", kimg.Errorf(kimg.ErrExists, stem, "%d containers of this name are too many", maxNames)
}

func (s *Store) nameTaken(name string) bool {
	c, err := s.st.Container(name)
	if err != nil {
		return false
	}
	for _, n := range c.Names {
		if n == name {
			return true
		}
	}
	return false
}

// autoName is the name buildah would give.
func autoName(imageName, imageID string) string {
	if imageName == "" && imageID == "" {
		return "working-container"
	}
	stem := imageID
	if len(stem) > 3 {
		stem = stem[:3]
	}
	if named, err := reference.ParseNormalizedNamed(imageName); err == nil {
		stem = named.Name()[strings.LastIndex(named.Name(), "/")+1:]
	}
	return stem + "-working-container"
}

// unmake takes back a container that was being made.
func (s *Store) unmake(ctx context.Context, id, rw string) error {
	if err := s.removeContainer(ctx, id); err != nil {
		return err
	}
	return s.deleteUnusedLayer(rw, nil)
}

func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
