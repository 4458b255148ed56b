package copydata

import (
	"bytes"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/strict"
)

// Directory is where the state files of containers lie, one directory for each container.
type Directory interface {
	// Read returns the content of a file in the directory of the container id. Class notfound when there is none,
	// class limit when it is larger than max bytes, class unsafe when it is not a regular file.
	Read(id, file string, max int64) ([]byte, error)

	// Replace writes a file in the directory of the container id, atomically and durably, if the file there still has
	// the generation (see [Generation]) that data was made from; 0 means that there is no file. Otherwise nothing is
	// written and the error is class busy. Comparing and writing happen under one lock.
	Replace(id, file string, generation uint64, data []byte) error
}

// Load reads the state of a container and checks all of it, as the package documentation says. Class notfound when the
// container has no state file (another tool made it), class state when the file is damaged, too large, not a regular file,
// of another container or of a later version.
func Load(dir Directory, containerID string) (*CopyData, error) {
	if err := strict.ID(containerID); err != nil {
		return nil, kimg.Wrap("container", err)
	}
	data, err := dir.Read(containerID, FileName, MaxSize)
	if err == nil {
		var c *CopyData
		if c, err = decode(data, containerID); err == nil {
			return c, nil
		}
	}
	if class := kimg.ClassOf(err); class == kimg.ErrLimit || class == kimg.ErrUnsafe {
		err = damaged("%s", err)
	}
	return nil, kimg.Wrap("state of container "+containerID, err)
}

// decode reads and checks a state file. All errors are class state.
func decode(data []byte, containerID string) (*CopyData, error) {
	f, unknown, err := decodeFile(data)
	if err != nil {
		return nil, err
	}
	c := &CopyData{
		generation: f.Generation, containerID: f.ContainerID, imageName: f.Image, imageID: f.ImageID,
		source:  convert.Document{Format: f.Format, Manifest: f.Manifest, Config: f.Config},
		diffIDs: f.DiffIDs,
		texts: texts{
			annotations: f.Annotations, layerAnnotations: f.LayerAnno, createdBy: f.CreatedBy, historyComment: f.Comment,
			name: f.ContainerName, mountPoint: f.MountPoint,
		},
		history: f.History, unknown: unknown,
	}
	if err := c.check(); err != nil {
		return nil, damaged("%s", err)
	}
	if c.containerID != containerID {
		return nil, damaged("container-id is another container's")
	}
	if err := c.decodeConfigs(f); err != nil {
		return nil, err
	}
	return c, nil
}

// decodeConfigs reads the source image and both halves of the future one.
func (c *CopyData) decodeConfigs(f file) error {
	switch schema1 := f.Format == convert.DockerV2S1; {
	case schema1 && f.Config != nil:
		return damaged("config is not a member of a schema 1 image")
	case schema1 && f.Manifest == nil:
		return damaged("manifest is missing")
	case schema1 && f.DiffIDs == nil:
		f.DiffIDs = []digest.Digest{} // not known is not allowed, none is
	case !schema1 && f.DiffIDs != nil:
		return damaged("diff-ids is a member of schema 1 images only")
	case !schema1 && f.Config == nil && (f.Manifest != nil || f.Format != ""):
		return damaged("config is missing")
	case f.Format == "" && f.Config != nil:
		return damaged("format is missing")
	}
	if scratch := f.Format == ""; scratch != (f.ImageID == "") {
		return damaged("image-id and format are both needed for an image, neither for scratch")
	}
	if f.Format != "" {
		var err error
		if c.base, err = convert.Parse(c.source, f.DiffIDs); err != nil {
			return damaged("manifest and config are not a valid image (%s)", reason(err))
		}
	}
	config, err := c.base.WithDocker(f.Docker)
	if err != nil {
		return damaged("docker is not a valid configuration (%s)", reason(err))
	}
	c.config = config
	var said ispec.Image
	if err := strict.UnmarshalExact(f.OCIv1, &said); err != nil {
		return damaged("ociv1 is not a valid configuration (%s)", reason(err))
	}
	if f.Schema < schema {
		return nil // another version's projection; the next save writes ours
	}
	derived, err := strict.Marshal(config.OCI())
	if err != nil {
		return damaged("docker is not a valid configuration (timestamp)")
	}
	if again, err := strict.Marshal(said); err != nil || !bytes.Equal(again, derived) {
		return damaged("docker and ociv1 disagree")
	}
	return nil
}
