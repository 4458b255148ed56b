package copydata

import (
	"maps"
	"slices"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
)

// Settings is everything about a container that can be edited: one superset, of which the Docker and the OCI
// configuration of the future image are both derived.
type Settings struct {
	Image            docker.Image      // the configuration; Image.Config is never nil
	Annotations      map[string]string // of the manifest; never nil
	LayerAnnotations map[string]string // of the layer that the commit adds, in its manifest; never nil
	CreatedBy        string            // for the history entry of the commit
	HistoryComment   string            // for the history entry of the commit
	Name             string            // of the container
	MountPoint       string            // where the container is mounted: an absolute path, or empty
}

// Update lets fn edit a copy of the settings and takes them over when they are valid. It is all or nothing: after an
// error, which may be fn's own, the state is as it was. Members of the configuration that fn leaves alone keep their
// bytes, known or not. Nothing is written: see [CopyData.Save].
//
// The rules for the configuration are those of [Settings.Check] and [convert.Config.Edit]; ids, names, paths and texts
// that are not valid are class invalid.
func (c *CopyData) Update(fn func(*Settings) error) error {
	return c.update(func(s *Settings) error {
		if err := fn(s); err != nil {
			return err
		}
		was := Settings{Image: c.config.Docker(), Annotations: c.annotations, LayerAnnotations: c.layerAnnotations}
		err := s.Check(was)
		if err != nil {
			was.Image = c.base.Docker()
			if s.Check(was) == nil { // back to what the image came with, valid or not
				return nil
			}
		}
		return kimg.Wrap(c.label(), err)
	})
}

// update is Update for what another tool has accepted already.
func (c *CopyData) update(fn func(*Settings) error) error {
	s := Settings{
		Image: c.config.Docker(), Annotations: map[string]string{}, LayerAnnotations: map[string]string{},
		CreatedBy: c.createdBy, HistoryComment: c.historyComment, Name: c.name, MountPoint: c.mountPoint,
	}
	maps.Copy(s.Annotations, c.annotations)
	maps.Copy(s.LayerAnnotations, c.layerAnnotations)
	if err := fn(&s); err != nil {
		return err
	}
	next := *c
	next.texts = texts{
		annotations: maps.Clone(s.Annotations), layerAnnotations: maps.Clone(s.LayerAnnotations),
		createdBy: s.CreatedBy, historyComment: s.HistoryComment, name: s.Name, mountPoint: s.MountPoint,
	}
	if err := next.check(); err != nil {
		return kimg.Wrap(c.label(), err)
	}
	var err error
	if next.config, err = edit(c.config, s.Image); err != nil {
		return kimg.Wrap(c.label(), err)
	}
	edited, err := differences(c, &next)
	if err != nil {
		return kimg.Errorf(kimg.ErrInternal, c.label(), "compare: %w", err)
	}
	next.edited = slices.Compact(slices.Sorted(slices.Values(append(edited, c.edited...))))
	*c = next
	return nil
}

// label names the state in errors.
func (c *CopyData) label() string {
	if c.containerID == "" {
		return "image " + c.imageID
	}
	return "container " + c.containerID
}

func edit(config convert.Config, image docker.Image) (convert.Config, error) {
	return config.Edit(func(img *docker.Image) error {
		*img = image
		return nil
	})
}
