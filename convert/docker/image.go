package docker

import (
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"
)

// Image is the image configuration of schema 2. It is a superset of the OCI image configuration: every member of that
// is here under the same name.
type Image struct {
	Created         *time.Time `json:"created,omitempty"` // nil when unknown
	Author          string     `json:"author,omitempty"`
	Architecture    string     `json:"architecture,omitempty"` // as GOARCH
	Variant         string     `json:"variant,omitempty"`      // of the architecture: "v7"
	OS              string     `json:"os,omitempty"`           // as GOOS
	OSVersion       string     `json:"os.version,omitempty"`
	OSFeatures      []string   `json:"os.features,omitempty"`
	Config          *Config    `json:"config,omitempty"` // how to run a container of this image
	RootFS          RootFS     `json:"rootfs"`
	History         []History  `json:"history,omitempty"`          // oldest first; empty when unknown
	Parent          string     `json:"parent,omitempty"`           // image id ("sha256:…") this was built on, local builds only
	Comment         string     `json:"comment,omitempty"`          // the commit message
	Container       string     `json:"container,omitempty"`        // id of the container that was committed
	ContainerConfig *Config    `json:"container_config,omitempty"` // how that container ran
	DockerVersion   string     `json:"docker_version,omitempty"`   // what built the image
}

// Config says how to run a container.
type Config struct {
	User         string              `json:"User,omitempty"`         // user[:group], names or numbers
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"` // "80/tcp"
	Env          []string            `json:"Env,omitempty"`          // "NAME=value"
	Entrypoint   Strings             `json:"Entrypoint,omitempty"`
	Cmd          Strings             `json:"Cmd,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"` // paths
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`  // name or number
	ArgsEscaped  bool                `json:"ArgsEscaped,omitempty"` // Windows: the command is one escaped string

	Healthcheck *Healthcheck `json:"Healthcheck,omitempty"`
	OnBuild     []string     `json:"OnBuild,omitempty"`     // Dockerfile instructions for images built on this one
	Shell       Strings      `json:"Shell,omitempty"`       // what runs the shell form of RUN, CMD and ENTRYPOINT
	StopTimeout *int         `json:"StopTimeout,omitempty"` // seconds; 0 is a value

	Hostname        string `json:"Hostname,omitempty"`
	Domainname      string `json:"Domainname,omitempty"`
	AttachStdin     bool   `json:"AttachStdin,omitempty"`
	AttachStdout    bool   `json:"AttachStdout,omitempty"`
	AttachStderr    bool   `json:"AttachStderr,omitempty"`
	Tty             bool   `json:"Tty,omitempty"`
	OpenStdin       bool   `json:"OpenStdin,omitempty"`
	StdinOnce       bool   `json:"StdinOnce,omitempty"`
	Image           string `json:"Image,omitempty"` // the image as the user named it
	NetworkDisabled bool   `json:"NetworkDisabled,omitempty"`
	MacAddress      string `json:"MacAddress,omitempty"`

	// Written by Docker up to 1.6.
	Memory     int64 `json:"Memory,omitempty"`     // bytes
	MemorySwap int64 `json:"MemorySwap,omitempty"` // bytes, -1 for no limit
	CPUShares  int64 `json:"CpuShares,omitempty"`

	// Written by Docker up to 1.8.
	Cpuset         string   `json:"Cpuset,omitempty"`
	PortSpecs      []string `json:"PortSpecs,omitempty"`
	SecurityOpt    []string `json:"SecurityOpt,omitempty"`
	VolumeDriver   string   `json:"VolumeDriver,omitempty"`
	PublishService string   `json:"PublishService,omitempty"`
}

// Healthcheck says how to find out whether a container works.
type Healthcheck struct {
	// Test is empty to inherit, {"NONE"} for no check, {"CMD", args…}, or {"CMD-SHELL", command}.
	Test          []string      `json:"Test,omitempty"`
	Interval      time.Duration `json:"Interval,omitempty"` // all durations are nanoseconds in JSON; 0 inherits
	Timeout       time.Duration `json:"Timeout,omitempty"`
	StartPeriod   time.Duration `json:"StartPeriod,omitempty"`
	StartInterval time.Duration `json:"StartInterval,omitempty"` // since Docker 25
	Retries       int           `json:"Retries,omitempty"`       // 0 inherits
}

// RootFS lists the layers of an image, base first.
type RootFS struct {
	Type    string          `json:"type"` // always "layers"
	DiffIDs []digest.Digest `json:"diff_ids"`
}

// History is one step of how an image came to be.
type History struct {
	Created    *time.Time `json:"created,omitempty"` // nil when unknown
	CreatedBy  string     `json:"created_by,omitempty"`
	Author     string     `json:"author,omitempty"`
	Comment    string     `json:"comment,omitempty"`
	EmptyLayer bool       `json:"empty_layer,omitempty"` // the step has no layer in RootFS
}

// Strings is a list of strings that old images also wrote as one bare string, which is a list of one.
type Strings []string

// UnmarshalJSON reads a list, a bare string or null.
func (s *Strings) UnmarshalJSON(data []byte) error {
	if len(data) == 0 || data[0] != '"' {
		return json.Unmarshal(data, (*[]string)(s))
	}
	var one string
	if err := json.Unmarshal(data, &one); err != nil {
		return err
	}
	*s = Strings{one}
	return nil
}
