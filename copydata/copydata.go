// Package copydata keeps the state of one working container.
package copydata

import (
	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/opencontainers/go-digest"
)

// FileName is the name of the state file in the container's directory.
const FileName = "kimg.json"

// MaxSize is the largest state file, in bytes.
const MaxSize = 32 << 20

// Directory is where state files live.
type Directory interface {
	// Read returns a file of a container's directory, at most max bytes (class limit beyond), class notfound when absent.
	Read(id, file string, max int64) ([]byte, error)
	// Replace writes a file atomically if what is there has the generation it was made from (0: nothing is there).
	// Otherwise class busy, and nothing is written.
	Replace(id, file string, generation uint64, data []byte) error
}

// Origin is what a container is made from. The zero value is scratch for this machine's architecture.
type Origin struct {
	ImageName, ImageID string
	Format             convert.Format
	Manifest, Config   []byte
	DiffIDs            []digest.Digest
	OS, Arch, Variant  string // scratch only
}

// Settings is everything about a container's future image that can be edited.
type Settings struct {
	Image       docker.Image
	Annotations map[string]string
	CreatedBy   string
	MountPoint  string
	Name        string
}

// CopyData is the state of one container.
type CopyData struct{ s Settings }

func later(what string) error {
	return kimg.Errorf(kimg.ErrUnsupported, what, "under construction")
}

// New returns the state of a new container.
func New(o Origin, containerID, name string) (*CopyData, error) { return nil, later("new") }

// Load reads the state of a container.
func Load(dir Directory, containerID string) (*CopyData, error) { return nil, later("load") }

// Generation returns the generation of a state file.
func Generation(data []byte) (uint64, error) { return 0, later("generation") }

// Update edits the settings.
func (c *CopyData) Update(fn func(*Settings) error) error { return later("update") }

// Save writes the state.
func (c *CopyData) Save(dir Directory) error { return later("save") }

// Config returns the configuration of the container's future image.
func (c *CopyData) Config() convert.Config { return convert.Config{} }

// Source returns the image's own manifest and configuration bytes; zero for scratch.
func (c *CopyData) Source() convert.Document { return convert.Document{} }

// Annotations returns a copy.
func (c *CopyData) Annotations() map[string]string { return nil }

// ImageID returns the id of the image the container was made from; empty for scratch.
func (c *CopyData) ImageID() string { return "" }

// ImageName returns the name the image was asked for by.
func (c *CopyData) ImageName() string { return "" }

// ContainerID returns the container's id.
func (c *CopyData) ContainerID() string { return "" }

// Name returns the container's name.
func (c *CopyData) Name() string { return "" }

// CreatedBy returns the text for the history entry of the commit.
func (c *CopyData) CreatedBy() string { return "" }

// MountPoint returns where the container was last mounted; never trust it without a check.
func (c *CopyData) MountPoint() string { return "" }
