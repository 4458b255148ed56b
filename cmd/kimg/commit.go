package main

import (
	"math"
	"os"
	"strconv"
	"time"

	"github.com/containers/image/v5/types"
	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/convert"
	convertimage "github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/layerdiff"
)

// commitOptions are the flags of kimg commit.
type commitOptions struct {
	*app
	cmd *cobra.Command

	format, compression          string
	level                        int
	remove                       bool
	author, message, createdBy   string
	timestamp                    int64
	omitHistory, squash, rewrite bool
	progress                     string
	endProgress                  func()
	annotation, unsetAnnotation  []string
	label, changes               []string
	iidFile, metadataFile        string
	manifest                     string
	skipUnreadable, force, quiet bool
	pause                        bool
	remote                       registryFlags

	names   []string               // in the store
	copies  []types.ImageReference // elsewhere
	options commit.Options
	copying commit.CopyOptions
}

func newCommit(a *app) *cobra.Command {
	o := &commitOptions{app: a}
	cmd := &cobra.Command{
		Use:   "commit [flags] CTR [DST…]",
		Short: "Make an image of a container and print its ID",
		Long: `Make an image of a container and print its ID. DST is a name in the store, or containers-storage:NAME, oci:DIR[:NAME],
oci-archive:FILE[:NAME], docker-archive:FILE[:NAME], dir:DIR or docker://NAME. Without any, the image is in the store and
has no name.

With several DSTs the container is read for all of them, and everything is staged everywhere before the image appears
anywhere: in the store, then in files, then in registries. When one fails, it is named, and the others are as they were
before; but what a registry has, it keeps. Credentials and certificates for registries are those of podman and skopeo,
unless flags say otherwise, for all DSTs that are docker://.

The image is made of the container as it is; nobody should write to it meanwhile. A file that changes while it is read is
read again, or named in an error. --pause freezes a container that podman or CRI-O runs while it is read, and thaws it.

With --timestamp, or SOURCE_DATE_EPOCH in the environment, the same container gives the same image at any time.`,
		Example: `  kimg commit CTR registry.example/app:1
  kimg commit --format docker --rm CTR app
  kimg commit --compression gzip CTR oci:/srv/layout:1
  kimg commit CTR app:1 docker-archive:app.tar:app:1 docker://registry.example/app:1`,
		Args: args(1, -1),
	}
	cmd.RunE = a.withStore(anyNamespace, o.check, o.run)
	o.cmd = cmd
	f := cmd.Flags()
	f.StringVarP(&o.format, "format", "f", "", "`format` of the image: oci or docker (default: docker for docker-archive:, else oci)")
	f.StringVar(&o.compression, "compression", "", "compress layers outside the store with `algorithm` none, gzip, zstd or zstd:chunked (default: gzip for docker://, else none)")
	f.IntVar(&o.level, "compression-level", 0, "`level` of the compression: gzip 0 to 9, zstd 1 to 22 (default: the algorithm's)")
	f.BoolVar(&o.remove, "rm", false, "remove the container when its image is there")
	f.StringVar(&o.author, "author", "", "`name` of the image's author")
	f.StringVarP(&o.message, "message", "m", "", "`text` about the image")
	f.StringVar(&o.createdBy, "created-by", "", "`text` for the history entry")
	f.Int64Var(&o.timestamp, "timestamp", 0, "time of the image, in `seconds` since 1970 (default: SOURCE_DATE_EPOCH, else now)")
	f.BoolVar(&o.squash, "squash", false, "make one layer of the container and its image, and one history entry")
	f.BoolVar(&o.rewrite, "rewrite-timestamp", false, "give files of the new layer no later time than the image, which needs --timestamp or SOURCE_DATE_EPOCH")
	f.BoolVar(&o.omitHistory, "omit-history", false, "leave the image without history")
	f.StringArrayVarP(&o.annotation, "annotation", "a", nil, "annotation `name=value` of the manifest; may repeat")
	f.StringArrayVar(&o.unsetAnnotation, "unsetannotation", nil, "remove the annotation `name`; may repeat")
	f.StringArrayVarP(&o.label, "label", "l", nil, "label `name=value`; may repeat")
	changeFlag(f, &o.changes)
	f.StringVar(&o.iidFile, "iidfile", "", "write the image's ID to a `file`")
	f.StringVar(&o.metadataFile, "metadata-file", "", "write what was made to a JSON `file`")
	f.StringVar(&o.manifest, "manifest", "", "add the image to the manifest `list` of the store, which is made when there is none")
	f.BoolVar(&o.skipUnreadable, "skip-unreadable", false, "leave out files that cannot be read, and list them")
	f.BoolVar(&o.force, "force", false, "commit even if the container's content may have suffered in a crash")
	f.BoolVar(&o.pause, "pause", false, "freeze a running container while it is read")
	f.StringVar(&o.progress, "progress", "auto", progressUsage)
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print nothing but the ID")
	o.remote.register(cmd, "", "registries")
	return cmd
}

// check turns flags and destinations into the options of the library.
func (o *commitOptions) check(list []string) error {
	format, err := parseFormat(o.format)
	if err != nil {
		return err
	}
	o.copying.NoSync = o.flags.noSync
	if o.copying.System, o.copying.Retries, err = o.remote.system(o.app); err != nil {
		return err
	}
	if o.copying.Compression, o.copying.Level, err = parseCompression(o.cmd, o.compression, o.level); err != nil {
		return err
	}
	created, err := o.created()
	if err != nil {
		return err
	}
	if o.rewrite && created == nil {
		return usagef("--rewrite-timestamp", "needs --timestamp or SOURCE_DATE_EPOCH")
	}
	if o.pause && o.remove {
		return usagef("--pause", "a container that goes on running cannot be removed")
	}
	progress, end, err := o.progressTo(o.progress, o.quiet)
	if err != nil {
		return err
	}
	o.endProgress = end
	annotated, err := annotations(o.annotation)
	if err != nil {
		return err
	}
	edits, err := settings("label", o.label)
	if err != nil {
		return err
	}
	changes, err := instructions(o.changes)
	if err != nil {
		return err
	}
	if err := o.destinations(list[1:]); err != nil {
		return err
	}
	o.options = commit.Options{
		Format: format, Names: o.names, Manifest: o.manifest, Author: o.author, Message: o.message, CreatedBy: o.createdBy, Created: created,
		Squash: o.squash, RewriteTimestamp: o.rewrite, Progress: progress, OmitHistory: o.omitHistory, Annotations: annotated, UnsetAnnotations: o.unsetAnnotation, Change: append(changes, edits...).ApplyTo,
		Remove: o.remove, Pause: o.pause, Force: o.force, SkipUnreadable: o.skipUnreadable, Jobs: o.flags.jobs, Logger: o.log,
	}
	if err := commit.Check(o.copies, o.options, o.copying); kimg.ClassOf(err) == kimg.ErrInvalid {
		return usageError{err}
	} else if err != nil {
		return err
	}
	return nil
}

func parseFormat(name string) (convert.Format, error) {
	switch name {
	case "":
		return "", nil
	case "oci":
		return convert.OCI, nil
	case "docker", "v2s2":
		return convert.DockerV2S2, nil
	case "v2s1":
		return "", kimg.Errorf(kimg.ErrUnsupported, "--format", "new images are not made in the format v2s1")
	}
	return "", usagef("--format", "%s is neither oci nor docker", kimg.Quote(name))
}

// parseCompression reads the two flags. 0 is one of gzip's levels here; in the library it means the default.
func parseCompression(cmd *cobra.Command, word string, level int) (layerdiff.Compression, int, error) {
	algo := layerdiff.Compression(word)
	if err := layerdiff.CheckLevel(algo, 0); err != nil {
		return "", 0, usagef("--compression", "%s is neither none, gzip, zstd nor zstd:chunked", kimg.Quote(word))
	}
	if !cmd.Flags().Changed("compression-level") {
		return algo, 0, nil
	}
	asked := level
	if level == 0 && algo == layerdiff.Gzip {
		level = layerdiff.Stored
	} else if level <= 0 {
		level = math.MaxInt // none of the others has such a level
	}
	if err := layerdiff.CheckLevel(algo, level); err != nil {
		return "", 0, usagef("--compression-level", "%d is no level of the compression %s", asked, kimg.Quote(word))
	}
	return algo, level, nil
}

// created is the time of the image: that of the flag, else that of the environment, else none.
func (o *commitOptions) created() (*time.Time, error) {
	if o.cmd.Flags().Changed("timestamp") {
		return moment("--timestamp", o.timestamp)
	}
	return sourceDateEpoch()
}

// sourceDateEpoch is the time that reproducible builds set in the environment, nil when they do not.
func sourceDateEpoch() (*time.Time, error) {
	const name = "SOURCE_DATE_EPOCH"
	value := os.Getenv(name)
	if value == "" {
		return nil, nil
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return nil, usagef(name, "%s is not a number of seconds", kimg.Quote(value))
	}
	return moment(name, seconds)
}

// lastSecond of the year 9999: JSON cannot write later ones.
const lastSecond = 253402300799

func moment(what string, seconds int64) (*time.Time, error) {
	if seconds < 0 || seconds > lastSecond {
		return nil, usagef(what, "%d seconds after 1970 are no time of an image", seconds)
	}
	t := time.Unix(seconds, 0).UTC()
	return &t, nil
}

// annotations are those that flags name=value say.
func annotations(flags []string) (map[string]string, error) {
	edits, err := settings("annotation", flags)
	if err != nil {
		return nil, err
	}
	var s copydata.Settings
	err = edits.Apply(&s)
	return s.Annotations, err
}

// destinations sorts names in the store from places elsewhere.
func (o *commitOptions) destinations(list []string) error {
	refs, err := references(list)
	for _, ref := range refs {
		if convertimage.NamesStore(ref) {
			o.names = append(o.names, ref.StringWithinTransport())
		} else {
			o.copies = append(o.copies, ref)
		}
	}
	return err
}
