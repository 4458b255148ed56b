package convert

import (
	"reflect"

	"github.com/kimg/kimg/internal/strict"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Ignored lists the members of the configuration that say something which readers of a format do not hear, as warnings:
// Docker's own members in an OCI image. [Config.JSON] keeps them, so that nothing is lost on the way to Docker. A comment that
// the newest history entry says as well is heard.
func (c Config) Ignored(f Format) (Report, error) {
	if c.raw == nil || f != OCI {
		return nil, nil
	}
	img := c.Docker()
	if n := len(img.History); n > 0 && img.History[n-1].Comment == img.Comment {
		img.Comment = ""
	}
	said, err := strict.Marshal(img)
	if err != nil {
		return nil, err
	}
	_, report, err := prune(said, reflect.TypeFor[ispec.Image](), "kept, but readers of OCI images ignore it; Docker's format has it")
	for i := range report {
		report[i].Kind = Warning
	}
	return report, err
}
