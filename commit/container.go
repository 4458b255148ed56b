package commit

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// Container commits a container to an image in its own store. The image is recorded when every byte of it is on disk,
// and not at all on an error.
//
// With Options.Remove the container is removed as well, mounted or not. When it is not mounted and no ids are mapped, its
// files become those of the image without being copied: the store's next Open completes the change if this process is
// killed between the two.
func Container(ctx context.Context, st *store.Store, id string, o Options) (Result, error) {
	names, err := store.NormalizeNames(o.Names)
	if err != nil {
		return Result{}, err
	}
	return intoStore(ctx, st, id, o, names, func() *copies { return newCopies(ctx, st, nil, o, CopyOptions{}) })
}

// intoStore commits to the store and to places elsewhere, all of them or none. What somebody removed from the store meanwhile is made
// again.
func intoStore(ctx context.Context, st *store.Store, id string, o Options, names []string, to func() *copies) (r Result, err error) {
	err = store.Again(func() (err error) {
		r, err = tryIntoStore(ctx, st, id, o, names, to())
		return err
	})
	return r, err
}

func tryIntoStore(ctx context.Context, st *store.Store, id string, o Options, names []string, out *copies) (r Result, err error) {
	steps := newSteps(st, o.Progress, "")
	defer func() { steps.end(err) }()
	p, err := open(ctx, st, id, o)
	if err != nil {
		return Result{}, err
	}
	defer p.close()
	if err := measure(ctx, p.st, p.base, p.o.Jobs); err != nil {
		return Result{}, err
	}
	links, err := p.mayLink()
	if err != nil {
		return Result{}, err
	}
	links = links && len(out.all) == 0 // copies may read the container after its layer is staged
	defer func() {
		if cerr := out.close(); err == nil {
			err = cerr
		}
	}()
	var step *layerStep
	done := p.takeTurns(ctx, func(bytes int64) {
		steps.reached(bytes)
		step.reached(bytes)
	})
	defer done()
	r = Result{Names: names, Removed: o.Remove}
	err = st.Change(ctx, "commit", func(ctx context.Context, tx *store.Tx) error {
		steps.begin(StepLayers)
		how, err := out.first(ctx)
		if err != nil {
			return err
		}
		step = steps.layer(NewLayer, -1)
		staged := &tree{stack: p.stack.Stack, o: p.diff(links)}
		var layer *store.StagedLayer
		_, err = out.maker.newest(ctx, p.container.LayerID, how, func(ctx context.Context, w io.Writer) (_ layerdiff.Blob, err error) {
			staged.o.Tar = w
			layer, err = tx.StageLayer(ctx, p.parent, staged)
			return staged.blob, err
		})
		if step.end(err); err != nil {
			return err
		}
		done()
		steps.begin(StepConfig)
		docs, err := p.documents(staged.blob, nil)
		if err != nil {
			return err
		}
		r.Layer, r.LayerExisted = staged.blob, layer.Existing
		r.fill(docs)
		if err := out.stage(ctx, &source{plan: p, blob: staged.blob, docs: docs}); err != nil {
			return err
		}
		p.thaw()
		record := store.ImageRecord{
			Config: docs.config, Manifest: docs.manifest, ManifestType: docs.manifestType,
			TopLayer: layer.ID, Names: names, Created: p.created,
		}
		return p.record(ctx, tx, record, links, steps, out)
	})
	if err != nil {
		err = kimg.Wrap(p.container.Name, err)
		if _, gone := st.Container(context.WithoutCancel(ctx), p.container.ID); o.Remove && kimg.ClassOf(gone) == kimg.ErrNotFound {
			return Result{}, err // the store completes the change, so the copies stay as well
		}
		return Result{}, out.failed(ctx, err)
	}
	out.tell(&r)
	return r, nil
}

// record registers what the change records.
func (p *plan) record(ctx context.Context, tx *store.Tx, record store.ImageRecord, links bool, steps *steps, out *copies) error {
	tell := func(step Step) {
		tx.Record(string(step), func(context.Context) error { steps.begin(step); return nil })
	}
	tell(StepManifest)
	// Linked files are shared with the container until it is removed, so the image is recorded only then.
	if p.o.Remove && links {
		tx.RemoveContainer(p.container.ID)
	}
	tx.PutImage(record)
	if err := p.list(ctx, tx, record); err != nil {
		return err
	}
	tell(StepNaming)
	if len(out.all) > 0 {
		tx.Record("copies", out.publish)
	}
	if p.o.Remove && !links {
		tx.RemoveContainer(p.container.ID)
	}
	return nil
}

func (r *Result) fill(d documents) {
	r.ConfigDigest = digest.FromBytes(d.config)
	r.ManifestDigest = digest.FromBytes(d.manifest)
	r.ImageID = r.ConfigDigest.Encoded()
	r.DiffIDs = d.diffIDs
	r.Report = d.report
}

// mayLink tells whether the container's files may become the image's: it goes away, nothing writes to it, its files have
// the owners the image must have, and a killed commit is completed by the store's next Open. A
// container that is mounted where this process cannot see it is class busy: it cannot be removed.
func (p *plan) mayLink() (bool, error) {
	if !p.o.Remove || p.o.Squash { // the files of the layers below are not the container's
		return false, nil
	}
	quiet, err := p.container.Quiet()
	return quiet && !p.stack.Plain && len(p.stack.UIDs) == 0 && len(p.stack.GIDs) == 0 && p.st.Recovers(), err
}
