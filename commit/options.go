package commit

import (
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/layerdiff"
)

// Options says how a container becomes an image. The zero value makes an unnamed OCI image, now, and keeps the
// container.
type Options struct {
	Format convert.Format // empty: OCI; for [Copy] what the destination holds
	Names  []string       // in the store, as users write them; ignored by [Reference]

	// Manifest is a manifest list of the store that the image is added to, in the same change. When there is none it is made, with this
	// name. With it [Copy] commits to the store as well.
	Manifest string

	Author    string     // empty: the one of the container's configuration
	Message   string     // the comment of the image and of its newest history entry
	CreatedBy string     // of the newest history entry; empty: the one of the container's state
	Created   *time.Time // of image and history entry; nil: now

	// Squash makes one layer of all that the container shows, its image's layers included, and one history entry.
	Squash bool

	// RewriteTimestamp makes Created, which is then needed, the latest time of files in the new layer.
	RewriteTimestamp bool

	// Compression of the layers that [Reference] gives; [Copy] has its own, in CopyOptions. The zero value leaves them
	// uncompressed. For the levels see [layerdiff.CheckLevel].
	Compression layerdiff.Compression
	Level       int
	TempDir     string // where compressed layers lie until they are copied; empty: $TMPDIR, else /var/tmp

	// OmitHistory leaves the image without any history, that of the base image included.
	OmitHistory bool

	Annotations      map[string]string // added to the manifest, over those of the base image
	UnsetAnnotations []string          // removed from it

	// Change edits the configuration of this image only: the container's state stays as it is.
	Change func(*docker.Image) error

	Remove bool // removes the container when the image is recorded; see [Container]
	// Pause freezes a container that an engine runs while its files are read, and thaws it however that ends, unless it was frozen
	// before. Where it cannot be frozen a warning says so, and its files are taken as they are. Not with Remove.
	Pause bool

	Force          bool // commits although the container's content cannot be trusted after a crash
	SkipUnreadable bool // lists files that cannot be opened in Result.LeftOut instead of failing

	Jobs     int          // files read at the same time; 0 is one per processor
	Logger   *slog.Logger // nil: the store's
	Progress func(Event)  // told about every step at every place, one event at a time for each place, which waits for it; may be nil
}

func (o Options) format() convert.Format {
	if o.Format == "" {
		return convert.OCI
	}
	return o.Format
}

// checkCompression refuses a compression that does not exist, or that a format has no media type for.
func checkCompression(f convert.Format, algo layerdiff.Compression, level int) error {
	if err := layerdiff.CheckLevel(algo, level); err != nil {
		return err
	}
	if (algo == layerdiff.Zstd || algo == layerdiff.ZstdChunked) && f == convert.DockerV2S2 {
		return kimg.Errorf(kimg.ErrInvalid, "", "%s images cannot have layers compressed with %s", f, algo)
	}
	return nil
}

// Result says what a commit made.
type Result struct {
	ImageID        string          // 64 hexadecimal digits: the digest of the configuration
	ManifestDigest digest.Digest   // of the manifest as it was written; with copies that of the first
	ConfigDigest   digest.Digest   //
	DiffIDs        []digest.Digest // base first, the new layer last
	Names          []string        // normalised
	Layer          layerdiff.Blob  // the new layer; Layer.Empty when nothing had changed
	LayerExisted   bool            // the store had an equal layer already
	Removed        bool            // the container is gone
	Copies         []Copied        // outside the store
	Report         convert.Report  // what the format could not say, and what had to be changed
}
