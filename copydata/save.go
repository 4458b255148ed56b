package copydata

import (
	"encoding/json"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/strict"
)

// Save writes the state into the directory of its container, as the generation after the one it was read from. When
// the file there has moved on in between, or exists although this state is new, the error is class busy, nothing is
// written, and the caller loads again. After an error the state can be saved again.
func (c *CopyData) Save(dir Directory) error {
	if c.containerID == "" {
		return kimg.Errorf(kimg.ErrInvalid, "state of image "+c.imageID, "belongs to no container and cannot be saved")
	}
	next := c.generation + 1
	if next == 0 {
		return kimg.Wrap("state of container "+c.containerID, damaged("generation is at its end"))
	}
	history, err := c.nextHistory(next)
	if err != nil {
		return err
	}
	data, err := c.encode(next, history)
	if err == nil {
		err = dir.Replace(c.containerID, FileName, c.generation, data)
	}
	if err != nil {
		return kimg.Wrap("state of container "+c.containerID, err)
	}
	c.generation, c.history, c.made, c.edited = next, history, "", nil
	return nil
}

func (c *CopyData) encode(generation uint64, history []json.RawMessage) ([]byte, error) {
	docker, _, err := c.config.JSON(convert.DockerV2S2)
	if err != nil {
		return nil, err
	}
	oci, err := strict.Marshal(c.config.OCI())
	if err != nil {
		return nil, kimg.Errorf(kimg.ErrInternal, FileName, "encode ociv1: %w", err)
	}
	return file{
		Type: Type, Schema: schema, Generation: generation,
		ContainerID: c.containerID, ContainerName: c.name, Image: c.imageName, ImageID: c.imageID,
		Format: c.source.Format, Manifest: c.source.Manifest, Config: c.source.Config, DiffIDs: c.diffIDs,
		MountPoint: c.mountPoint, Annotations: c.annotations, LayerAnno: c.layerAnnotations,
		CreatedBy: c.createdBy, Comment: c.historyComment,
		Docker: docker, OCIv1: oci, History: history,
	}.encode(c.unknown)
}
