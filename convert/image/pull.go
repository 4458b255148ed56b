package image

import (
	"context"
	"io"
	"maps"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/transfer"
)

// gated is the source of a job as it is fetched into the store: what the policy accepts of it.
type gated struct{ *job }

// Manifest implements transfer.Source.
func (g gated) Manifest(ctx context.Context) ([]byte, error) { return g.from.Manifest(ctx) }

// ManifestByDigest implements transfer.Source.
func (g gated) ManifestByDigest(ctx context.Context, d digest.Digest) ([]byte, error) {
	data, err := g.from.ManifestByDigest(ctx, d)
	if err == nil {
		err = g.judge(ctx, g.src, g.from, &d)
	}
	return data, err
}

// Blob implements transfer.Source.
func (g gated) Blob(ctx context.Context, d digest.Digest) (io.ReadCloser, int64, error) {
	return g.from.Blob(ctx, d)
}

func (c *Converter) transfer(progress func(transfer.Event)) transfer.Options {
	return transfer.Options{Jobs: c.o.Jobs, Logger: c.o.Logger, KeepBlobs: c.o.KeepBlobs, Recipes: c.o.Recipes, Progress: progress}
}

// target is the store that is the destination, and the names of the image there.
func (j *job) target() (st *store.Store, names []string, err error) {
	if st, err = j.store(); err != nil {
		return nil, nil, err
	}
	if name := j.dst.StringWithinTransport(); name != "" {
		names = append(names, name)
	}
	names, err = store.NormalizeNames(append(names, j.o.Names...))
	return st, names, err
}

// pull brings an image into the store as it is, with the manifest it came with; one of schema 1 becomes one of schema 2.
func (j *job) pull(ctx context.Context, manifest []byte) (Result, error) {
	st, names, err := j.target()
	if err != nil {
		return Result{}, err
	}
	img, err := transfer.Read(ctx, gated{j}, manifest)
	if err == nil {
		err = j.storable(img)
	}
	if err != nil {
		return Result{}, err
	}
	var kept []byte
	data := map[digest.Digest][]byte{}
	if img.Format != convert.DockerV2S1 {
		if kept, err = j.keepAbout(ctx, data, img.Digest); err != nil {
			return Result{}, err
		}
	}
	var r Result
	var done []transfer.Done
	err = transfer.Change(ctx, st, "pull", func(ctx context.Context, tx *store.Tx) error {
		one := *img // a second attempt begins anew
		rec, layers, err := one.Unpack(ctx, tx, j.transfer(j.tells("")))
		if err != nil {
			return err
		}
		rec.Names, done = names, layers
		rec.About = kept
		maps.Copy(rec.Data, data)
		if j.signed != nil {
			rec.Signatures = map[digest.Digest][][]byte{img.Digest: j.signed}
		}
		tx.PutImage(rec)
		r = pulled(img, rec, layers)
		return nil
	})
	if err == nil {
		j.remember(ctx, st, img, done)
	}
	return r, err
}

// storable refuses what the store does not hold as it is, when it must be as it is.
func (j *job) storable(img *transfer.Image) error {
	switch {
	case j.o.PreserveDigests && img.Format == convert.DockerV2S1:
		return kimg.Errorf(kimg.ErrUnsupported, "", "the digest would change: a store has no place for schema 1")
	case j.signed != nil && img.Format == convert.DockerV2S1:
		return voided("a store has no place for schema 1")
	case j.o.Format != "" && j.o.Format != img.Format && img.Format != convert.DockerV2S1:
		return kimg.Errorf(kimg.ErrUnsupported, "", "images come into the store as they are; convert makes other formats of them")
	case j.o.Platform != nil && img.Platform.Architecture != "" && convert.PlatformRank(*j.o.Platform, img.Platform) < 0:
		j.o.Logger.Warn("the image is for another platform", "image", label(j.src), "asked", platformText(j.o.Platform), "has", platformText(&img.Platform))
	}
	return nil
}

// pulled says what came into the store.
func pulled(img *transfer.Image, rec store.ImageRecord, layers []transfer.Done) Result {
	r := Result{From: img.Format, To: img.Format, OldDigest: img.Digest, NewDigest: img.Digest.Algorithm().FromBytes(rec.Manifest), ConfigDigest: digest.FromBytes(rec.Config), ImageID: rec.ID()}
	if img.Format == convert.DockerV2S1 {
		r.To = convert.DockerV2S2
	}
	r.Platform = platformText(&img.Platform)
	for n, d := range layers {
		r.DiffIDs = append(r.DiffIDs, d.DiffID)
		r.Layers = append(r.Layers, Layer{Digest: img.Said[n].Digest, DiffID: d.DiffID, Size: d.Blob, Compression: d.Compression})
	}
	return r
}

// asCame is the level under which a layer remembers the blob it was unpacked from: nothing makes it again, but a registry may have it.
const asCame = -2

// remember lets layers remember the blobs they came as, so that what is built on them need not send them again. It only saves work.
func (j *job) remember(ctx context.Context, st *store.Store, img *transfer.Image, done []transfer.Done) {
	all := map[string][]store.KnownBlob{}
	for n, d := range done {
		a := string(d.Compression)
		if d.Skipped || d.ID == "" || a != string(compression.Gzip) && a != string(compression.Zstd) {
			continue
		}
		all[d.ID] = append(all[d.ID], store.KnownBlob{DiffID: d.DiffID, Algorithm: a, Level: asCame, Digest: img.Said[n].Digest, Size: d.Blob})
	}
	if len(all) > 0 {
		j.learn(ctx, st, all)
	}
}

func (j *job) learn(ctx context.Context, st *store.Store, all map[string][]store.KnownBlob) {
	if err := st.RememberBlobs(ctx, all); err != nil {
		j.o.Logger.WarnContext(ctx, "the compressed forms of layers are not remembered", "error", kimg.Line(err))
	}
}

// pullIndex brings an index with all its images into the store, as podman keeps manifest lists.
func (j *job) pullIndex(ctx context.Context, data []byte) (Result, error) {
	st, names, err := j.target()
	if err != nil {
		return Result{}, err
	}
	l := &loader{Converter: j.Converter, in: &incoming{ref: j.src}, o: LoadOptions{Strict: true}}
	all := &arriving{label: label(j.src), Loaded: Loaded{Names: names}}
	if err := l.readIndex(ctx, j, data, all); err != nil {
		return Result{}, err
	}
	images := []digest.Digest{digest.FromBytes(data)}
	for _, one := range all.Instances {
		images = append(images, one.Digest)
	}
	if all.about, err = j.keepAbout(ctx, all.data, images...); err != nil {
		return Result{}, err
	}
	err = transfer.Change(ctx, st, "pull", func(ctx context.Context, tx *store.Tx) error {
		all.Loaded, err = l.unpack(ctx, tx, all)
		return err
	})
	if err != nil {
		return Result{}, err
	}
	v, err := convert.ParseIndex(data)
	r := Result{From: v.Format, To: v.Format, OldDigest: digest.FromBytes(data), NewDigest: digest.FromBytes(data), ImageID: all.ID}
	for i, img := range all.images {
		if img != nil {
			r.Images = append(r.Images, pulled(img, all.records[i], all.done[i]))
			j.remember(ctx, st, img, all.done[i])
		}
	}
	return r, err
}
