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
	p, err := open(ctx, st, id, o)
	if err != nil {
		return Result{}, err
	}
	if err := measure(ctx, p.st, p.base); err != nil {
		return Result{}, err
	}
	links, err := p.mayLink()
	if err != nil {
		return Result{}, err
	}
	result := Result{Names: names, Removed: o.Remove}
	err = st.Change(ctx, "commit", func(ctx context.Context, tx *store.Tx) error {
		source := &upper{plan: p, links: links}
		layer, err := tx.StageLayer(ctx, p.parent, source)
		if err != nil {
			return err
		}
		docs, err := p.documents(source.blob)
		if err != nil {
			return err
		}
		record := store.ImageRecord{
			Config: docs.config, Manifest: docs.manifest, ManifestType: docs.manifestType,
			TopLayer: layer.ID, Names: names, Created: p.created,
		}
		// Linked files are shared with the container until it is removed, so the image is recorded only then.
		if o.Remove && links {
			tx.RemoveContainer(p.container.ID)
		}
		tx.PutImage(record)
		if o.Remove && !links {
			tx.RemoveContainer(p.container.ID)
		}
		result.Layer, result.LayerExisted = source.blob, layer.Existing
		result.fill(docs)
		return nil
	})
	if err != nil {
		return Result{}, kimg.Wrap(p.container.Name, err)
	}
	return result, nil
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
	if !p.o.Remove {
		return false, nil
	}
	quiet, err := p.container.Quiet()
	return quiet && len(p.uids) == 0 && len(p.gids) == 0 && p.st.Recovers(), err
}

// upper is the container's change as a layer on its way into the store.
type upper struct {
	plan  *plan
	links bool
	blob  layerdiff.Blob // what was staged
}

// Stage implements [store.LayerSource].
func (u *upper) Stage(ctx context.Context, dir string) (store.Staged, error) {
	tarSplit, err := store.TarSplitFile(dir)
	if err != nil {
		return store.Staged{}, err
	}
	u.blob, err = layerdiff.Stage(ctx, dir, tarSplit, u.plan.stack, u.plan.diff(u.links))
	if err != nil {
		tarSplit.Close()
		return store.Staged{}, err
	}
	return store.Staged{
		DiffID: u.blob.DiffID, Size: u.blob.Size, UIDs: u.blob.UIDs, GIDs: u.blob.GIDs,
		TarSplit: tarSplit, Empty: u.blob.Empty,
	}, nil
}

// Stream implements [store.LayerSource].
func (u *upper) Stream(ctx context.Context, w io.Writer) (err error) {
	u.blob, err = layerdiff.Write(ctx, w, u.plan.stack, u.plan.diff(false))
	return err
}
