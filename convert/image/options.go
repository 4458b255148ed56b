package image

import (
	"log/slog"
	"runtime"
	"time"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/transfer"
)

// Options say how images are converted. The zero value converts to what the destination holds and works without a store.
type Options struct {
	// Format of the result. Empty: OCI for oci: and oci-archive:, schema 2 for docker-archive:, else the source's own, but
	// schema 2 for a schema 1 source.
	Format  convert.Format
	Convert convert.Options // Name and Tag of a written schema 1 manifest: those of the source when empty

	// Platform chooses one image of an index; nil converts all of them.
	Platform *ispec.Platform

	// Keep leaves every image as it is, byte for byte, unless the destination, Format or Compression forces a change. Its blobs are
	// checked against digest and size and not unpacked, but for a store; those that the destination has are not read.
	Keep             bool
	PreserveDigests  bool // with Keep: what would change a digest is class unsupported
	Single           bool // of an index only the image for this machine, where Platform chooses none
	RemoveSignatures bool // with Keep: signatures beside manifests do not go along; else they must, or it is class unsupported
	KeepBlobs        bool // layers that come into a store keep the blobs they came as
	Recipes          bool // with KeepBlobs: where how a blob is made again of its layer is proven, only that is kept; takes a compression

	// Referrers takes along, between registries and the store, what is about images that keep their digests, and what is about that: manifests that have
	// them as subjects, and what cosign tags; at most 1,000 manifests. The destination's name comes after them.
	Referrers bool

	Compression layerdiff.Compression // none, gzip, zstd or zstd:chunked: every layer is compressed with it; empty: what the destination wants
	Level       int                   // of it; 0 is the algorithm's default

	AdditionalTags []string // of an image in a registry
	Names          []string // more of them, of an image that comes into the store

	Retries     int           // how often a registry that fails for a while is asked again; 0: 3 times; negative: never
	RetryPause  time.Duration // before the first; 0: 1 s. Each is twice as long as the one before
	IdleTimeout time.Duration // a registry that is silent for so long has failed; 0: 60 s

	// Whole takes of a manifest list of the store the images along that are elsewhere, from there. Without it the list is what the store
	// has of it.
	Whole bool

	// DestinationSys is for a destination in a registry; nil: Sys.
	DestinationSys *types.SystemContext

	FailOnLoss bool // refuses, class unsupported, when the report has a loss
	VerifyJWS  bool // verifies the signatures inside schema 1 manifests; an unsigned one is class invalid
	Proof      bool // compares the merged trees before and after

	// Sys is for registries and for the signature policy: its SignaturePolicyPath, else the user's and the system's file.
	// Where there is none, everything is accepted. May be nil.
	Sys *types.SystemContext

	// Store opens the store, once, when a reference names one. The caller closes it. Nil: such references are class unsupported.
	Store func() (*store.Store, error)

	Jobs   int          // layers at the same time; 0 is one per processor
	NoSync bool         // success does not mean that the result is on disk
	Logger *slog.Logger // nil discards

	// Progress is told how far each blob is that is read as a layer; of images that come into a store, and of those that Load brings with
	// the image's name in the archive, or number. It may be nil. Any goroutine calls it.
	Progress func(image string, e transfer.Event)
}

func (o Options) jobs() int {
	if o.Jobs > 0 {
		return o.Jobs
	}
	return runtime.GOMAXPROCS(0)
}

// Result says what one conversion read and made.
type Result struct {
	From, To     convert.Format  // empty of an index
	OldDigest    digest.Digest   // of the source's manifest; of its payload when that is signed
	NewDigest    digest.Digest   // of the manifest as it was written
	ConfigDigest digest.Digest   // of the configuration as it was written; empty for schema 1
	DiffIDs      []digest.Digest // base first
	Layers       []Layer         // at the destination, base first
	Report       convert.Report
	KeyIDs       []string // of the keys that signed a schema 1 manifest, when they were verified
	Proof        *Proof   // nil when it was not asked for
	Platform     string   // of an image of an index, else empty
	Images       []Result // of an index, in its order
	ImageID      string   // in the store, if it went there
}

// Layer is one layer of a converted image.
type Layer struct {
	Digest, DiffID digest.Digest         // of the blob at the destination, and of the plain tar
	Size           int64                 // of the blob, in bytes
	Compression    compression.Algorithm // of the blob at the destination; empty for a foreign layer
	Recompressed   bool                  // the source has it in another form
}

// Proof holds the digests of an image's merged tree, as package rootfs defines them: equal trees, equal digests.
type Proof struct{ Before, After digest.Digest }
