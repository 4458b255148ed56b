package commit

import (
	"cmp"
	"context"
	"io"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// plan is everything a commit knows before it reads the container's files.
type plan struct {
	st        *store.Store
	container *store.Container
	state     *copydata.CopyData
	imported  convert.Report    // what is not known about a container of another tool
	base      []store.LayerInfo // the layers of the base image, base first
	baseInfo  baseImage
	parent    string // id of the newest layer of the base image; "": none
	stack     *store.Stack
	created   time.Time
	o         Options
	paused    bool        // nobody writes to it
	thaw      func()      // ends that; more than once is fine
	moved     func(int64) // told how much of the new layer is done; may be nil
}

// baseImage is what the new image says about the one it was made from.
type baseImage struct {
	id     string
	name   string
	digest digest.Digest

	inherited map[string]string // the annotations of its manifest
	layers    []convert.Layer   // what its manifest says of its layers; may be nil
}

// annotations say what the new image was made from (OCI image specification, "Pre-Defined Annotation Keys").
func (b baseImage) annotations() map[string]string {
	all := map[string]string{}
	if b.digest != "" {
		all[ispec.AnnotationBaseImageDigest] = b.digest.String()
	}
	if b.name != "" {
		all[ispec.AnnotationBaseImageName] = b.name
	}
	return all
}

// open reads the container's state and finds what it stands on. Nothing is changed.
func open(ctx context.Context, st *store.Store, id string, o Options) (*plan, error) {
	o.Logger = cmp.Or(o.Logger, st.Logger())
	if o.RewriteTimestamp && o.Created == nil {
		return nil, kimg.Errorf(kimg.ErrInvalid, "commit", "the times of files cannot be rewritten without a time for the image")
	}
	if o.Pause && o.Remove {
		return nil, kimg.Errorf(kimg.ErrInvalid, "commit", "a container that goes on running cannot be removed")
	}
	if o.format() != convert.OCI && o.format() != convert.DockerV2S2 {
		return nil, kimg.Errorf(kimg.ErrUnsupported, "commit", "format %s", kimg.Quote(string(o.Format)))
	}
	c, err := st.Container(ctx, id)
	if err != nil {
		return nil, err
	}
	if !o.Force && !o.Pause {
		if err := notRunning(c); err != nil {
			return nil, err
		}
	}
	p := &plan{st: st, container: c, o: o}
	if p.state, p.imported, err = st.CopyData(ctx, c.ID); err != nil {
		return nil, err
	}
	if err := p.findBase(ctx); err != nil {
		return nil, err
	}
	if o.Squash {
		p.squash()
		p.stack, err = st.Compare(ctx, nil, c, store.StackOptions{Force: o.Force})
	} else {
		p.stack, err = c.Stack(ctx, store.StackOptions{Force: o.Force})
	}
	if err != nil {
		return nil, err
	}
	p.created = time.Now().UTC()
	if o.Created != nil {
		p.created = o.Created.UTC()
	}
	if err := p.pause(ctx); err != nil {
		p.stack.Close()
		return nil, err
	}
	return p, nil
}

// squash makes all the container shows its change, of nothing.
func (p *plan) squash() {
	p.base, p.parent = nil, ""
	p.baseInfo = baseImage{inherited: p.baseInfo.inherited}
}

// close ends the reading of the container.
func (p *plan) close() {
	p.thaw()
	p.stack.Close()
}

// notRunning refuses a container that an engine is running: what is read of a file while it is written belongs to no
// moment.
func notRunning(c *store.Container) error {
	pid, err := c.Running()
	if err == nil && pid != 0 {
		err = kimg.Errorf(kimg.ErrBusy, c.Name, "%s is running it, as process %d; stop it first (or use --pause, or --force to take its files as they are now)", c.Tool, pid)
	}
	return err
}

// findBase reads the image the container was made from, and checks that the state speaks of it.
func (p *plan) findBase(ctx context.Context) error {
	img, err := p.container.Base(ctx)
	if err != nil {
		return kimg.Errorf(kimg.ErrDamaged, p.container.Name, "its image: %w", err)
	}
	if img == nil {
		if n := len(p.state.Config().Docker().RootFS.DiffIDs); n != 0 {
			return kimg.Errorf(kimg.ErrState, p.container.Name, "the state has %d layers below, the container has none", n)
		}
		return nil
	}
	p.parent = img.TopLayer
	p.base, p.baseInfo, err = readBase(ctx, img, p.state)
	return kimg.Wrap(p.container.Name, err)
}

// readBase reads the layers of an image, and checks that the state speaks of them: class state.
func readBase(ctx context.Context, img *store.Image, state *copydata.CopyData) ([]store.LayerInfo, baseImage, error) {
	info := baseImage{id: img.ID, name: fullName(state.ImageName(), img.Names), digest: img.Digest}
	layers, err := img.Layers(ctx)
	if err != nil {
		return nil, info, err
	}
	diffIDs := state.Config().Docker().RootFS.DiffIDs
	if len(layers) != len(diffIDs) {
		return nil, info, kimg.Errorf(kimg.ErrState, "", "the state has %d layers below, the image has %d", len(diffIDs), len(layers))
	}
	for i, l := range layers {
		if l.DiffID != "" && l.DiffID != diffIDs[i] {
			return nil, info, kimg.Errorf(kimg.ErrState, "", "layer %d of the image has diffID %s, the state says %s", i, l.DiffID, diffIDs[i])
		}
		layers[i].DiffID = diffIDs[i]
	}
	if source := state.Source(); len(source.Manifest) > 0 && source.Format != convert.DockerV2S1 {
		m, err := convert.ParseManifest(source.Manifest)
		if err != nil {
			return nil, info, err
		}
		if info.inherited = m.Annotations; len(m.Layers) == len(layers) {
			info.layers = m.Layers
		}
	}
	return layers, info, nil
}

// fullName is the name of the base image that others understand: the one it was asked for by when the image has that, else
// its first one.
func fullName(asked string, names []string) string {
	for _, name := range names {
		if full, err := store.NormalizeName(asked); name == asked || err == nil && name == full {
			return name
		}
	}
	if len(names) > 0 {
		return names[0]
	}
	return ""
}

// diff returns the options of the walk.
func (p *plan) diff(links bool) layerdiff.Options {
	var clamp *time.Time
	if p.o.RewriteTimestamp {
		clamp = &p.created
	}
	var targets []string
	engines := []string{store.ToolBuildah, store.ToolPodman, store.ToolCRIO}
	if slices.Contains(engines, p.container.Tool) && !p.o.Squash { // a squashed image has its base's own as well
		targets = []string{"/dev", "/proc", "/sys", "/run/.containerenv", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
	}
	quiet, err := p.container.Quiet()
	return layerdiff.Options{
		Live: (!quiet || err != nil) && !p.paused, MountTargets: targets, Clamp: clamp, UIDs: p.stack.UIDs, GIDs: p.stack.GIDs, Jobs: p.o.Jobs, SkipUnreadable: p.o.SkipUnreadable, Links: links,
		Logger: p.o.Logger, Progress: p.moved,
	}
}

// writeNewest writes what the container changed, as a tar.
func (p *plan) writeNewest(ctx context.Context, w io.Writer) (layerdiff.Blob, error) {
	return layerdiff.Write(ctx, w, p.stack.Stack, p.diff(false))
}

// measure fills in the sizes of layers that the store does not know, by producing them once.
func measure(ctx context.Context, st *store.Store, layers []store.LayerInfo, jobs int) error {
	chain, sizes := make([]layerdiff.Source, len(layers)), make([]counter, len(layers))
	for i, l := range layers {
		chain[i] = layerdiff.Source{DiffID: l.DiffID, Write: func(ctx context.Context, w io.Writer) (layerdiff.Blob, error) {
			err := st.ExportLayer(ctx, l.ID, w)
			return layerdiff.Blob{Size: int64(sizes[i])}, err
		}}
	}
	blobs, err := layerdiff.WriteAll(ctx, chain, func(_ context.Context, i int) (io.WriteCloser, error) {
		if layers[i].Size >= 0 {
			return nil, nil
		}
		return &sizes[i], nil
	}, jobs)
	for i := range blobs {
		if layers[i].Size < 0 {
			layers[i].Size = blobs[i].Size
		}
	}
	return err
}

type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }
func (c *counter) Close() error                { return nil }
