package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containers/storage"
	"github.com/containers/storage/pkg/idtools"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/copydata"
)

// The tools whose containers are recognised in a store.
const (
	ToolKimg    = "kimg"
	ToolBuildah = "buildah"
	ToolPodman  = "podman"
	ToolCRIO    = "cri-o"
)

// Container is one container record: a working container of ours or another tool's container. The record is a snapshot.
type Container struct {
	ID      string
	Name    string // the first of Names, or the ID
	Names   []string
	ImageID string // "": made from scratch
	LayerID string // of the layer it writes to
	Created time.Time
	Foreign bool   // another tool's
	Tool    string // which tool made it, as far as the record tells; "" unknown
	UIDMap  []idtools.IDMap
	GIDMap  []idtools.IDMap

	metadata string
	s        *Store
}

func (s *Store) container(rec *storage.Container) *Container {
	c := &Container{
		ID: rec.ID, Name: nameOrID(rec.Names, rec.ID), Names: rec.Names, ImageID: rec.ImageID, LayerID: rec.LayerID,
		Created: rec.Created, UIDMap: rec.UIDMap, GIDMap: rec.GIDMap, metadata: rec.Metadata, s: s,
	}
	c.Tool = s.toolOf(rec)
	c.Foreign = c.Tool != ToolKimg
	return c
}

// toolOf guesses who made a container: by the metadata for podman and CRI-O, which keep records of their own, also when a
// state of ours lies beside theirs; by the state file, or its metadata, for kimg and buildah.
func (s *Store) toolOf(rec *storage.Container) string {
	var metadata map[string]json.RawMessage
	if json.Unmarshal([]byte(rec.Metadata), &metadata) != nil {
		metadata = nil
	}
	_, pod := metadata["pod-id"]
	_, image := metadata["image-id"]
	_, mount := metadata["mountlabel"]
	switch {
	case pod:
		return ToolCRIO
	case image || mount:
		return ToolPodman
	case rec.Metadata == containerMetadata || s.hasStateFile(rec.ID):
		return ToolKimg
	case s.hasFile(rec.ID, copydata.BuildahFile):
		return ToolBuildah
	}
	return ""
}

func (s *Store) hasStateFile(id string) bool { return s.hasFile(id, copydata.FileName) }

func (s *Store) hasFile(id, name string) bool {
	_, err := os.Lstat(filepath.Join(s.containerDir(id), name))
	return err == nil
}

// containerDir is where the files beside a container lie. The library's own call would take a lock for each container.
func (s *Store) containerDir(id string) string {
	return filepath.Join(s.recordDir(s.st.GraphRoot(), "containers"), id, "userdata")
}

// Containers lists every container of the store, other tools' too. Leases are none of them.
func (s *Store) Containers(ctx context.Context) ([]*Container, error) {
	if err := check(ctx); err != nil {
		return nil, err
	}
	records, err := s.st.Containers()
	if err != nil {
		return nil, wrap("containers", err)
	}
	containers := make([]*Container, 0, len(records))
	for i := range records {
		if termsOf(&records[i]) == nil {
			containers = append(containers, s.container(&records[i]))
		}
	}
	return containers, nil
}

// Container finds a container by its name, its ID or the beginning of its ID. Several candidates are class invalid.
func (s *Store) Container(ctx context.Context, ref string) (*Container, error) {
	if err := check(ctx); err != nil {
		return nil, err
	}
	rec, err := s.st.Container(ref)
	lease := err == nil && termsOf(rec) != nil
	if lease && (rec.ID == ref || slices.Contains(rec.Names, ref)) {
		return nil, kimg.Errorf(kimg.ErrInvalid, ref, "is a lease and no container to work with")
	}
	if err == nil && ref != "" && !lease {
		return s.container(rec), nil
	}
	if ref != "" && !lease && !errors.Is(err, storage.ErrContainerUnknown) {
		return nil, wrap("container "+kimg.Quote(ref), err)
	}
	all, err := s.st.Containers()
	if err != nil {
		return nil, wrap("containers", err)
	}
	var candidates []string
	for i := range all {
		if c := &all[i]; isHex(ref) && strings.HasPrefix(c.ID, ref) && termsOf(c) == nil {
			candidates, rec = append(candidates, nameOrID(c.Names, c.ID)), c
		}
	}
	switch {
	case len(candidates) == 1: // the others that begin so are leases
		return s.container(rec), nil
	case len(candidates) > 1:
		slices.SortFunc(candidates, cmp.Compare[string])
		return nil, kimg.Errorf(kimg.ErrInvalid, kimg.Quote(ref), "means several containers: %s", kimg.Escape(strings.Join(candidates, ", "), 256))
	}
	return nil, kimg.Errorf(kimg.ErrNotFound, kimg.Quote(ref), "no such container in this store")
}

// Base returns the image the container was made from, nil for scratch. It is gone: class notfound.
func (c *Container) Base(ctx context.Context) (*Image, error) {
	if c.ImageID == "" {
		return nil, nil
	}
	if err := check(ctx); err != nil {
		return nil, err
	}
	rec, err := c.s.exactImage(c.ImageID)
	if err == nil && rec == nil {
		err = kimg.Errorf(kimg.ErrNotFound, c.Name, "its image %s is not in this store any more", c.ImageID)
	}
	if err != nil {
		return nil, err
	}
	return c.s.image(rec), nil
}

// containerExists tells whether a container record is there. Errors count as there.
func (s *Store) containerExists(id string) bool {
	_, err := s.st.Container(id)
	return !errors.Is(err, storage.ErrContainerUnknown)
}
