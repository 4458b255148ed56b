package convert

// Keep says what becomes of the members of a Docker configuration that OCI does not define.
type Keep int

// What becomes of Docker's own members in an OCI configuration.
const (
	DockerKeep Keep = iota // they stay where they are; OCI readers ignore them and the way back finds them
	DockerDrop             // they are left out, and each is reported
)

// Mode says how an empty layer of a schema 1 image is recognised.
type Mode int

// How an empty layer of a schema 1 image is recognised.
const (
	EmptyFlag    Mode = iota // by its flag only, as Docker does: gives Docker's image ID
	EmptyContent             // also by its content ([Layer.Empty]), for images from before the flag
)

// Options are the choices a conversion leaves. The zero Options loses nothing and does as Docker does.
type Options struct {
	Name, Tag     string // of a schema 1 image that is written: repository without host, and tag
	DockerFields  Keep   // in an OCI configuration
	EmptyLayers   Mode   // of a schema 1 image that is read
	ExactDockerID bool   // drop from the configuration of a schema 1 image what Docker would, for the same image ID
}
