package convert

import (
	"reflect"

	"github.com/kimg/kimg/internal/strict"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Ignored lists the members of the configuration that say something which readers of a format do not hear, as warnings:
// Docker's own members in an OCI image. [Config.JSON] keeps them, so that nothing is lost on the way to Docker.
func (c Config) Ignored(f Format) (Report, error) {
	if c.raw == nil || f != OCI {
		return nil, nil
	}
	said, err := strict.Marshal(c.Docker())
	if err != nil {
		return nil, err
	}
	_, report, err := prune(said, reflect.TypeFor[ispec.Image](), "it is kept, but OCI does not define it and tools that read OCI images ignore it; Docker's format has it")
	for i := range report {
		report[i].Kind = Warning
	}
	return report, err
}
