package commit

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containers/image/v5/pkg/blobinfocache/none"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/registry"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// copies are the copies of one image outside the store.
type copies struct {
	all       []*oneCopy // files and directories first
	o         Options
	co        CopyOptions
	published int // how many of all
	maker     *maker
}

// oneCopy is the image at one destination.
type oneCopy struct {
	dest types.ImageReference
	place
	staged
	form convert.Format
	algo layerdiff.Compression
}

// newCopies takes destinations that [Check] has passed.
func newCopies(ctx context.Context, st *store.Store, dests []types.ImageReference, o Options, co CopyOptions) *copies {
	c := &copies{o: o, co: co, maker: newMaker(ctx, st, o)}
	for _, remote := range []bool{false, true} {
		for _, dest := range dests {
			if remote != (dest.Transport().Name() == transportDocker) {
				continue
			}
			at, _ := placeOf(dest) // checked before
			one := &oneCopy{dest: dest, place: at, form: at.format(o), algo: at.compression(dest, co)}
			one.staged = staged{steps: newSteps(st, o.Progress, label(dest))}
			c.all = append(c.all, one)
		}
	}
	return c
}

// first is how the container's layer is put down in the pass that reads it, so that nobody has to read the container again:
// uncompressed at a place in the file system, from where it can be compressed as well, else as the first place wants it.
func (c *copies) first(ctx context.Context) (recipe, error) {
	var best *oneCopy
	for _, one := range c.all {
		if one.takesFiles() && one.made() == layerdiff.NoCompression {
			best = one
			break
		}
		if best == nil && one.made() != layerdiff.NoCompression {
			best = one
		}
	}
	if best == nil {
		r := recipe{}
		if len(c.all) > 0 {
			r.steps = c.all[0].steps
		}
		return r, nil
	}
	if best.takesFiles() {
		best.steps.begin(StepLayers)
		if err := best.open(ctx, c.maker, c.co); err != nil {
			best.steps.end(err)
			return recipe{}, best.named(err)
		}
	}
	return best.recipe(c.co), nil
}

// takesFiles tells whether layers can be written to the place as they are made.
func (c *oneCopy) takesFiles() bool {
	return c.dest.Transport().Name() != transportDocker && c.algo != layerdiff.ZstdChunked
}

// recipe is how layers are put down for this place, which is open if it takes files.
func (c *oneCopy) recipe(co CopyOptions) recipe {
	r := recipe{algo: c.made(), steps: c.steps}
	if r.algo != layerdiff.NoCompression {
		r.level = co.Level
	}
	if c.takesFiles() {
		r.into = c
	}
	return r
}

// made is what layers are compressed with before they are copied. containers/image writes zstd:chunked while it copies.
func (c *oneCopy) made() layerdiff.Compression {
	if c.algo == layerdiff.ZstdChunked {
		return layerdiff.NoCompression
	}
	return c.algo
}

// begin tells that the layers are being made.
func (c *copies) begin() {
	for _, one := range c.all {
		one.steps.begin(StepLayers)
	}
}

// stage puts everything but the manifests at every destination.
func (c *copies) stage(ctx context.Context, src *source) error {
	for _, one := range c.all {
		one.steps.begin(StepLayers)
		if err := one.stage(ctx, src, c.maker, c.o, c.co); err != nil {
			one.steps.end(err)
			return one.named(err)
		}
	}
	return nil
}

// named names the destination in a failure.
func (c *oneCopy) named(err error) error {
	return kimg.Wrap(label(c.dest), err)
}

// open opens the place, once.
func (c *oneCopy) open(ctx context.Context, m *maker, co CopyOptions) (err error) {
	if c.to != nil || c.remote != nil {
		return nil
	}
	if c.dest.Transport().Name() == transportDocker {
		patience := registry.Patient(co.Retries, co.RetryPause, co.IdleTimeout, m.o.Logger)
		c.remote, err = registry.Create(ctx, c.dest, co.System, patience, none.NoCache)
	} else {
		c.to, err = c.local(ctx, c.dest.Transport().Name(), co.NoSync)
	}
	if err != nil {
		c.to, c.remote = nil, nil // no interfaces of nothing
	}
	return err
}

func (c *oneCopy) stage(ctx context.Context, src *source, m *maker, o Options, co CopyOptions) error {
	if err := c.open(ctx, m, co); err != nil {
		return err
	}
	err := c.copy(ctx, src, m, o, co)
	if err != nil && m.stale() { // what was remembered is forgotten
		err = c.copy(ctx, src, m, o, co)
	}
	return err
}

// publish makes the image appear everywhere, in order.
func (c *copies) publish(ctx context.Context) error {
	for _, one := range c.all {
		one.steps.begin(StepManifest)
		if err := one.publish(ctx, one.form.ManifestType()); err != nil {
			one.steps.end(err)
			return one.named(err)
		}
		one.steps.begin(StepNaming)
		one.steps.end(nil)
		c.published++
	}
	return nil
}

// failed takes back what was published, last first, and returns the failure that made it necessary, with what could not
// be taken back.
func (c *copies) failed(ctx context.Context, failure error) error {
	remote, back := c.takeBack(ctx)
	for _, one := range c.all {
		one.steps.end(failure)
	}
	if len(remote) > 0 {
		failure = &kimg.Error{Class: kimg.ClassOf(failure), Err: fmt.Errorf("%w; the image stays at %s", failure, strings.Join(remote, ", "))}
	}
	if back != nil {
		return kimg.Errorf(kimg.ErrDamaged, "", "%w; what was written could not all be taken back: %v", failure, back)
	}
	return failure
}

// takeBack takes back what was published and returns the registries, which cannot.
func (c *copies) takeBack(ctx context.Context) (remote []string, err error) {
	for ; c.published > 0; c.published-- {
		one := c.all[c.published-1]
		if one.to == nil {
			remote = append(remote, label(one.dest))
		} else {
			err = errors.Join(err, one.to.TakeBack(ctx))
		}
	}
	return remote, err
}

// tell adds the copies to a result. Its manifest is that of the first.
func (c *copies) tell(r *Result) {
	for _, one := range c.all {
		r.Copies = append(r.Copies, Copied{Name: label(one.dest), Format: one.form, ManifestDigest: digest.FromBytes(one.manifest)})
	}
	if len(r.Copies) > 0 {
		r.ManifestDigest = r.Copies[0].ManifestDigest
	}
	c.maker.end()
}

// close ends everything. What was not published, or was taken back, goes.
func (c *copies) close() error {
	c.maker.close()
	var err error
	for i := len(c.all) - 1; i >= 0; i-- {
		one := c.all[i]
		if one.to != nil {
			err = errors.Join(err, one.to.Close())
		}
		if one.remote != nil {
			err = errors.Join(err, one.remote.Close())
		}
	}
	return err
}
