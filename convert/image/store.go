package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/internal/streamio"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/transfer"
)

// open returns the store, opened when it is first needed.
func (c *Converter) store() (*store.Store, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.st != nil {
		return c.st, nil
	}
	if c.o.Store == nil {
		return nil, kimg.Errorf(kimg.ErrUnsupported, "", "there is no store to look into")
	}
	var err error
	c.st, err = c.o.Store()
	return c.st, err
}

// stored is an image of the store, or a list, as a Source. Where a manifest names compressed blobs that the store does not keep,
// the layers are what it has, uncompressed.
type stored struct {
	st       *store.Store
	img      *store.Image
	list     *store.List // of img, when it is a list
	manifest []byte      // of the list: what leaves the store of it
	far      *elsewhere  // what of the list is not in the store; nil: nobody asked for it

	apart      bool // layers that may not be distributed are the blobs that the manifest names, there or not
	everything bool // those that the store has not as blobs are like others, all the same
	plain      bool // no layer is what the store keeps
}

// openStored finds an image of the store; of a manifest list the one for the platform of the options, or else the list, as far as
// the store has all of its images.
func (c *Converter) openStored(ctx context.Context, name string) (Source, error) {
	st, err := c.store()
	if err != nil {
		return nil, err
	}
	img, err := st.Record(ctx, name)
	if err != nil {
		return nil, err
	}
	if c.o.Platform != nil || c.o.Single || !img.IsList() {
		img, err = st.Resolve(ctx, name, c.o.Platform)
		return &stored{st: st, img: img}, err
	}
	list, err := img.List(ctx)
	if err != nil {
		return nil, err
	}
	s := &stored{st: st, img: img, list: &list, manifest: list.Index}
	if c.o.Whole {
		s.far = s.elsewhere(c)
	} else {
		if s.manifest, _, err = list.Best(ctx); err == nil && !bytes.Equal(s.manifest, list.Index) {
			c.o.Logger.WarnContext(ctx, "the store has not everything of the index; what it has goes, under another digest", "image", name, "index", img.Digest)
		}
	}
	return s, err
}

// Manifest implements Source.
func (s *stored) Manifest(ctx context.Context) ([]byte, error) {
	if s.list != nil {
		return s.manifest, nil
	}
	data, _, err := s.img.Manifest(ctx)
	return data, err
}

// ManifestByDigest implements Source.
func (s *stored) ManifestByDigest(ctx context.Context, d digest.Digest) ([]byte, error) {
	if s.list == nil {
		return nil, kimg.Errorf(kimg.ErrUnsupported, d.String(), "not an index but one image")
	}
	if where := s.far.holds(d); where != "" {
		return s.far.manifest(ctx, d, where)
	}
	return s.list.Manifest(ctx, d)
}

// Signatures implements signedSource.
func (s *stored) Signatures(ctx context.Context, instance digest.Digest) ([][]byte, error) {
	if where := s.far.holds(instance); where != "" {
		return s.far.signatures(ctx, instance, where)
	}
	if instance == "" {
		manifest, err := s.Manifest(ctx)
		if err != nil {
			return nil, err
		}
		instance = digest.FromBytes(manifest)
	}
	if s.list != nil {
		return s.list.Signatures(ctx, instance)
	}
	return s.img.Signatures(ctx, instance)
}

// Blob implements Source for what the store keeps as it came.
func (s *stored) Blob(ctx context.Context, d digest.Digest) (r io.ReadCloser, size int64, err error) {
	if src := s.far.has(d); src != nil {
		return src.Blob(ctx, d)
	}
	if s.list != nil {
		r, err = s.list.Blob(ctx, d, -1)
	} else {
		r, err = s.img.Blob(ctx, d, -1)
	}
	return r, -1, err
}

// Close implements Source.
func (s *stored) Close() error { return s.far.close() }

// layers implements layerSource.
func (s *stored) layers(ctx context.Context, p *picture) ([]blob, error) {
	img := s.img
	if s.far.holds(p.digest) != "" {
		blobs := make([]blob, len(p.said))
		for i, l := range p.said {
			blobs[i] = blobOf(s, l.Digest, l.Size)
		}
		return blobs, nil
	}
	if s.list != nil {
		for _, e := range s.list.Entries {
			if e.Digest == p.digest && e.Image != nil {
				img = e.Image
			}
		}
	}
	kept := 0
	if img.IsList() { // an image for another system
		kept = len(p.said)
	}
	for _, l := range p.said[kept:] {
		if keeps, err := img.Keeps(ctx, l.Digest); err != nil {
			return nil, err
		} else if keeps {
			kept++
		}
	}
	if kept == len(p.said) && !s.plain {
		blobs := make([]blob, kept)
		for i, l := range p.said {
			blobs[i] = blobOf(s, l.Digest, l.Size)
			if img.IsList() && convert.Foreign(l.MediaType) {
				blobs[i].open = nil
			}
		}
		return blobs, nil
	}
	infos, err := img.Layers(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range infos {
		if l.DiffID == "" {
			return nil, kimg.Errorf(kimg.ErrUnsupported, "layer "+l.ID, "the store does not know its digest (it was pulled in parts)")
		}
	}
	blobs := exported(s.st, infos)
	for i := range blobs {
		if i < len(p.said) && s.apart && !(s.plain && s.everything) && convert.Foreign(p.said[i].MediaType) {
			if keeps, err := img.Keeps(ctx, p.said[i].Digest); err != nil {
				return nil, err
			} else if keeps || !s.everything {
				blobs[i] = blobOf(s, p.said[i].Digest, p.said[i].Size)
				continue
			}
		}
		if blobs[i].forms, err = s.forms(ctx, infos[i], p.said, i); err != nil {
			return nil, err
		}
	}
	return blobs, nil
}

// forms are compressed forms of a layer that a registry may have: the one of the image's manifest, and those that the layer remembers.
func (s *stored) forms(ctx context.Context, l store.LayerInfo, all []convert.Layer, i int) ([]packedAs, error) {
	var forms []packedAs
	if i < len(all) && packed(all[i].MediaType) {
		form := packedAs{identity: identity{all[i].Digest, all[i].Size}, algorithm: said(all[i].MediaType), toc: asTOC(all[i].Annotations), level: asCame}
		if all[i].Annotations[tocOf] != "" {
			form.algorithm = zstdChunked
		}
		forms = append(forms, form)
	}
	known, err := s.st.KnownBlobs(ctx, l.ID)
	for _, b := range known {
		if b.DiffID == l.DiffID {
			forms = append(forms, packedAs{identity{b.Digest, b.Size}, compression.Algorithm(b.Algorithm), b.TOC, b.Level})
		}
	}
	return forms, err
}

// offered finds a layer that a registry has in a compressed form that is known: it is not even read.
func (c *Converter) offered(ctx context.Context, b blob, dst Destination, in shape) (moved, bool, error) {
	remote, ok := dst.(*remoteDestination)
	if !ok || in(compression.None) != packAnew {
		return moved{}, false, nil
	}
	for _, f := range b.forms {
		if in(f.algorithm) != keep || c.o.Level != 0 && c.o.Level != f.level { // of another compression than was asked for, or that the format does not know
			continue
		}
		if there, err := remote.Has(ctx, f.digest, f.size); err != nil || there {
			m := moved{at: f.identity, form: packAnew}
			m.facts = facts{size: b.size, compression: compression.None, diffID: b.digest, plain: b.size, packed: f}
			return m, there, err
		}
	}
	return moved{}, false, nil
}

// learnPacked lets layers of the store remember what they were compressed to.
func (j *job) learnPacked(ctx context.Context, p *picture, all []moved) {
	from, ok := j.from.(*stored)
	if !ok || !j.o.Keep {
		return
	}
	made := map[string][]store.KnownBlob{}
	for i, m := range all {
		if id := p.blobs[i].layer; id != "" && m.form == packAnew && !slices.Contains(p.blobs[i].forms, m.packed) {
			made[id] = append(made[id], store.KnownBlob{
				DiffID: m.diffID, Algorithm: string(m.packed.algorithm), Level: j.o.Level, Digest: m.packed.digest, Size: m.packed.size, TOC: m.packed.toc,
			})
		}
	}
	if len(made) > 0 {
		j.learn(ctx, from.st, made)
	}
}

// exported are layers of the store as blobs.
func exported(st *store.Store, layers []store.LayerInfo) []blob {
	blobs := make([]blob, len(layers))
	for i, l := range layers {
		write := func(ctx context.Context, w io.Writer) error { return st.ExportLayer(ctx, l.ID, w) }
		blobs[i] = blob{layer: l.ID, digest: l.DiffID, size: l.Size, write: write, open: func(ctx context.Context) (io.ReadCloser, int64, error) {
			return streamio.Produce(ctx, write), l.Size, nil
		}}
	}
	return blobs
}

// intoStore puts one image into the store.
func (j *job) intoStore(ctx context.Context, p *picture) (Result, error) {
	to := j.format(j.at, p.Format)
	st, names, err := j.target()
	if err == nil && to == p.Format {
		err = transfer.Storable(p.conf)
	}
	if err != nil {
		return Result{}, err
	}
	for i := range p.said {
		if p.foreign(i) {
			return Result{}, kimg.Errorf(kimg.ErrUnsupported, "", "media-type: layers[%d] is foreign; it is not fetched, and a store must unpack it", i)
		}
	}
	var out written
	err = transfer.Change(ctx, st, "convert", func(ctx context.Context, tx *store.Tx) error {
		all, layers, err := j.unpack(ctx, tx, p, to)
		if err != nil {
			return err
		}
		if out, err = j.document(p, to, all); err != nil {
			return err
		}
		if j.o.Proof { // when the layers are in the store, and the image is not
			tx.Record("proof", func(ctx context.Context) error { return j.prove(ctx, p, &out.Result, exported(st, layers)) })
		}
		top := ""
		if len(layers) > 0 {
			top = layers[len(layers)-1].ID
		}
		tx.PutImage(store.ImageRecord{
			Config: out.Config, Manifest: out.Manifest, ManifestType: out.mediaType, TopLayer: top, Names: names, Created: created(out.Config, to),
		})
		return nil
	})
	return out.Result, err
}

// unpack brings the layers into the store and returns what they are there. Empty layers that will not be in the image are left out.
func (j *job) unpack(ctx context.Context, tx *store.Tx, p *picture, to convert.Format) ([]moved, []store.LayerInfo, error) {
	all := make([]moved, len(p.blobs))
	var want []transfer.Layer
	var at []int // in all
	for i, b := range p.blobs {
		l := transfer.Layer{Digest: b.digest, Size: b.size, Open: b.open}
		if p.Format == convert.DockerV2S1 && j.o.Convert.EmptyLayers == convert.EmptyContent {
			m, err := j.move(ctx, b, nil, keepAll)
			if err != nil {
				return nil, nil, kimg.Wrap(fmt.Sprintf("layers[%d]", i), err)
			}
			if all[i], l.DiffID = m, m.diffID; m.empty {
				continue
			}
		}
		if p.diffIDs != nil {
			l.DiffID = p.diffIDs[i]
		}
		want, at = append(want, l), append(at, i)
	}
	done, err := transfer.Layers(ctx, tx, want, transfer.Options{Jobs: j.o.Jobs, Logger: j.o.Logger, Progress: j.tells("")})
	if err != nil {
		return nil, nil, err
	}
	layers := make([]store.LayerInfo, len(done))
	for n, d := range done {
		b := p.blobs[at[n]]
		f := facts{size: d.Blob, compression: d.Compression, diffID: d.DiffID, plain: d.Size}
		if d.Skipped {
			if f.size, f.compression, err = j.glance(ctx, b, d.DiffID); err != nil {
				return nil, nil, kimg.Wrap(fmt.Sprintf("layers[%d]", at[n]), err)
			}
		}
		m := moved{facts: f, form: j.at.shape(to, false, "")(f.compression)}
		if m.form == packAnew {
			m.form = asPlain // a store keeps no blobs: the layer is called what it is there
		}
		m.at = m.target(b)
		all[at[n]], layers[n] = m, store.LayerInfo{ID: d.ID, DiffID: d.DiffID, Size: d.Size}
	}
	return all, layers, nil
}

// glance tells the size of a blob that is not read, and how it is compressed: by what is known of it, or by its first bytes.
func (j *job) glance(ctx context.Context, b blob, diffID digest.Digest) (int64, compression.Algorithm, error) {
	if b.digest == diffID {
		return b.size, compression.None, nil
	}
	r, err := j.memo.take(ctx, b.digest)
	if err != nil {
		return 0, "", err
	}
	defer r.done()
	if r.known {
		return r.facts.size, r.facts.compression, nil
	}
	body, size, err := b.open(ctx)
	if err != nil {
		return 0, "", err
	}
	defer body.Close()
	if b.size >= 0 && size >= 0 && size != b.size {
		return 0, "", sizeError(b, size)
	}
	first := make([]byte, 6)
	n, err := io.ReadFull(body, first)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return max(size, b.size), compression.Detect(first[:n]), err
}

// created is the time a configuration names; now is never it.
func created(config []byte, f convert.Format) time.Time {
	if c, err := convert.Parse(convert.Document{Format: f, Config: config}, nil); err == nil {
		if t := c.Docker().Created; t != nil {
			return *t
		}
	}
	return time.Time{}
}

func newReader(data []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(data)) }
