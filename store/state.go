package store

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/internal/strict"
)

// CopyData returns the state of a container: its state file, or for another tool's container what that tool's files
// and its image say. Nothing is written; saving the state of another tool's container puts a state file of ours beside
// that tool's, which is what counts from then on. The report says what could not be taken over.
//
// Class state: the file of that container is damaged or gone (see [Store.RebuildState]).
func (s *Store) CopyData(ctx context.Context, containerID string) (*copydata.CopyData, convert.Report, error) {
	c, err := s.Container(ctx, containerID)
	if err != nil {
		return nil, nil, err
	}
	if !c.Foreign || s.hasStateFile(c.ID) {
		state, err := copydata.Load(s.Dir(), c.ID)
		if errors.Is(err, kimg.ErrNotFound) {
			err = kimg.Errorf(kimg.ErrState, "state of container "+c.ID, "%w", err)
		}
		return state, nil, err
	}
	return s.imported(ctx, c)
}

// imported reads another tool's container.
func (s *Store) imported(ctx context.Context, c *Container) (*copydata.CopyData, convert.Report, error) {
	base, err := c.Base(ctx)
	if err != nil {
		return nil, nil, err
	}
	origin, err := s.origin(ctx, base, c.imageName())
	if err != nil {
		return nil, nil, err
	}
	switch c.Tool {
	case ToolBuildah:
		data, err := s.Dir().Read(c.ID, copydata.BuildahFile, copydata.MaxSize)
		if err != nil {
			return nil, nil, unreadable(c, err)
		}
		return copydata.FromBuildah(data, origin, c.ID, c.ownName())
	case ToolPodman, ToolCRIO:
		spec, err := s.Dir().Read(c.ID, copydata.RuntimeFile, copydata.MaxSize)
		if err != nil && !errors.Is(err, kimg.ErrNotFound) {
			return nil, nil, unreadable(c, err)
		}
		return copydata.FromRuntime(copydata.Engine(c.Tool), spec, origin, c.ID, c.ownName())
	}
	return copydata.FromRuntime("", nil, origin, c.ID, c.ownName())
}

// unreadable gives what stands in the way of reading another tool's file its class.
func unreadable(c *Container, err error) error {
	if class := kimg.ClassOf(err); class == kimg.ErrLimit || class == kimg.ErrUnsafe {
		err = kimg.Errorf(kimg.ErrState, "", "%w", err)
	}
	return kimg.Wrap("state of container "+c.ID, err)
}

// ownName is the name a state holds: empty when the container has none, or one that kimg would not give (Kubernetes' are long).
func (c *Container) ownName() string {
	if len(c.Names) == 0 || strict.Name(c.Names[0]) != nil {
		return ""
	}
	return c.Names[0]
}

// imageName is the name of its image that the engine wrote into the container's record.
func (c *Container) imageName() string {
	var metadata struct {
		ImageName string `json:"image-name"`
	}
	if len(c.metadata) > maxManifest || json.Unmarshal([]byte(c.metadata), &metadata) != nil {
		return ""
	}
	return metadata.ImageName
}

// ImageCopyData returns the state a container of an image would begin with. It cannot be saved.
func (s *Store) ImageCopyData(ctx context.Context, ref string) (*copydata.CopyData, error) {
	img, err := s.Resolve(ctx, ref, nil)
	if err != nil {
		return nil, err
	}
	origin, err := s.origin(ctx, img, "")
	if err != nil {
		return nil, err
	}
	return copydata.FromImage(origin)
}

// RebuildState gives a container the settings of its image again, whatever its state file holds, edited by fn when that is not
// nil, and saves them. What stood there and was damaged is kept beside it, with ".damaged" behind its name. Class
// unsupported for another tool's container, which has no state file; busy when somebody else saved the state meanwhile.
func (s *Store) RebuildState(ctx context.Context, containerID string, fn func(*copydata.Settings) error) (*copydata.CopyData, error) {
	c, err := s.Container(ctx, containerID)
	if err != nil {
		return nil, err
	}
	if c.Foreign {
		return nil, kimg.Errorf(kimg.ErrUnsupported, c.Name, "another tool made this container; it has no state to rebuild")
	}
	base, err := c.Base(ctx)
	if err != nil {
		return nil, err
	}
	origin, err := s.origin(ctx, base, "")
	if err != nil {
		return nil, err
	}
	dir := rebuiltDir{stateDir{s}}
	old, _ := dir.Read(c.ID, copydata.FileName, copydata.MaxSize) // what cannot be read is replaced
	state, err := copydata.Renew(old, origin, c.ID, c.ownName())
	if err != nil {
		return nil, err
	}
	if fn != nil {
		if err := state.Update(fn); err != nil {
			return nil, err
		}
	}
	if err := state.Save(dir); err != nil {
		return nil, err
	}
	return state, nil
}

// rebuiltDir is a directory in which a state file that is damaged gives way.
type rebuiltDir struct{ stateDir }

// Replace implements copydata.Directory.
func (d rebuiltDir) Replace(id, file string, generation uint64, data []byte) error {
	return d.replace(id, file, generation, data, setAside)
}

// setAside keeps a damaged file under another name. The new file replaces it; only a directory has to move first.
func setAside(path string) error {
	aside := path + ".damaged"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	err := os.Link(path, aside)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EISDIR) {
		err = os.Rename(path, aside)
	}
	if err != nil {
		return err
	}
	return safeopen.SyncDir(filepath.Dir(path))
}

// origin collects what a state keeps of the image; name is the one by which it was asked for.
func (s *Store) origin(ctx context.Context, base *Image, name string) (copydata.Origin, error) {
	if base == nil {
		return copydata.Origin{}, nil
	}
	var origin copydata.Origin
	manifest, mediaType, err := base.Manifest(ctx)
	if err != nil {
		return origin, err
	}
	format, err := convert.Detect(manifest, mediaType)
	if err != nil {
		return origin, kimg.Wrap(base.label(), err)
	}
	var config []byte
	if format != convert.DockerV2S1 {
		if config, err = base.Config(ctx); err != nil {
			return origin, err
		}
	}
	layers, err := base.Layers(ctx)
	if err != nil {
		return origin, err
	}
	diffIDs := make([]digest.Digest, len(layers))
	for i, l := range layers {
		diffIDs[i] = l.DiffID
	}
	if slices.Contains(diffIDs, "") { // a partially pulled layer: only the configuration says what it is
		diffIDs = nil
	}
	if name == "" && len(base.Names) > 0 {
		name = base.Names[0]
	}
	return copydata.Origin{
		ImageName: name, ImageID: base.ID, Format: format, Manifest: manifest, Config: config, DiffIDs: diffIDs,
		IndexAnnotations: base.indexAnnotations,
	}, nil
}
