package copydata

import "github.com/kimg/kimg/convert"

// Losses says what an image of the settings would lose, or have changed, in a format, and what that format's readers would
// not hear. Class unsupported for formats that are not committed to.
func (c *CopyData) Losses(format convert.Format) (convert.Report, error) {
	_, report, err := c.config.JSON(format)
	if err != nil {
		return nil, err
	}
	ignored, err := c.config.Ignored(format)
	layers := make([]convert.Layer, len(c.config.Docker().RootFS.DiffIDs)+1) // only the annotations matter
	layers[len(layers)-1].Annotations = c.layerAnnotations
	return append(append(report, ignored...), convert.ManifestLosses(format, layers, c.annotations)...), err
}
