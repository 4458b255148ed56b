package image

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/internal/streamio"
)

// stays reports whether an image goes as it is, its manifest and its blobs byte for byte. With Options.PreserveDigests everything else
// is class unsupported.
func (j *job) stays(ctx context.Context, p *picture) (bool, error) {
	if !j.o.Keep {
		return false, nil
	}
	why, err := j.forced(ctx, p)
	if err == nil && why != "" && j.o.PreserveDigests {
		err = kimg.Errorf(kimg.ErrUnsupported, "", "the digest would change: %s", why)
	}
	if err == nil && why != "" && p.signed {
		err = voided(why)
	}
	return why == "", err
}

// forced says why an image cannot stay as it is; empty: it can.
func (j *job) forced(ctx context.Context, p *picture) (string, error) {
	switch to := j.format(j.at, p.Format); {
	case to != p.Format:
		return fmt.Sprintf("an image of format %s becomes one of %s", p.Format, to), nil
	case j.at.plain:
		return "the destination holds no manifest", nil
	case j.o.Compression != "":
		return "layers are compressed anew", nil
	}
	_, fromStore := j.from.(*stored)
	for i, l := range p.said {
		here := p.blobs[i].digest == l.Digest
		if p.foreign(i) || here && (!fromStore || packed(l.MediaType) || j.o.PreserveDigests || p.signed) {
			continue
		}
		if here {
			return fmt.Sprintf("layers[%d] is not compressed in the store", i), nil
		}
		if there, err := j.to.Has(ctx, l.Digest, l.Size); err != nil || !there {
			return fmt.Sprintf("the store does not keep the blob that layers[%d] came as, nor has the destination it; load or pull it with --keep-blobs", i), err
		}
	}
	return "", nil
}

// packed tells from its media type whether a layer is compressed.
func packed(mediaType string) bool { return said(mediaType) != compression.None }

// said is how a layer is compressed by its media type.
func said(mediaType string) compression.Algorithm {
	switch {
	case strings.HasSuffix(mediaType, "gzip"):
		return compression.Gzip
	case strings.HasSuffix(mediaType, "zstd"):
		return compression.Zstd
	}
	return compression.None
}

// asItIs moves one image to the destination byte for byte, all but its manifest. Blobs are checked against digest and size.
func (j *job) asItIs(ctx context.Context, p *picture) (written, error) {
	out := written{Document: p.Document, mediaType: mediaType(p.Format)}
	out.Result = Result{From: p.Format, To: p.Format, OldDigest: p.digest, NewDigest: p.digest, DiffIDs: p.diffIDs, KeyIDs: p.keyIDs, Report: p.lost}
	var blobs []blob
	known := map[digest.Digest]bool{}
	for i, l := range p.said {
		one := Layer{Digest: l.Digest, Size: l.Size}
		if !p.foreign(i) {
			one.Compression = said(l.MediaType)
			if p.diffIDs != nil {
				one.DiffID = p.diffIDs[i]
			}
			if !known[l.Digest] {
				b := p.blobs[i]
				if b.digest != l.Digest { // the destination has it
					b = blobOf(j.from, l.Digest, l.Size)
				}
				blobs = append(blobs, b)
			}
			known[l.Digest] = true
		}
		out.Layers = append(out.Layers, one)
	}
	for _, d := range p.schema1.Empty {
		if !known[d] {
			blobs = append(blobs, blobOf(j.from, d, -1))
		}
		known[d] = true
	}
	if p.noImage != nil {
		out.ConfigDigest, out.Layers = p.said[0].Digest, out.Layers[1:]
	}
	err := j.parallel(ctx, len(blobs), func(ctx context.Context, i int) error { return j.carry(ctx, blobs[i]) })
	if remote, ok := j.to.(*remoteDestination); ok && p.Config != nil {
		remote.near(j.src, p.conf)
	}
	if err == nil && p.Config != nil {
		out.ConfigDigest = p.conf
		err = j.putBytes(ctx, p.conf, p.Config)
	}
	return out, err
}

// carry takes one blob along, unless it is there.
func (j *job) carry(ctx context.Context, b blob) error {
	if remote, ok := j.to.(*remoteDestination); ok {
		remote.near(j.src, b.digest)
	}
	if _, isRemote := j.to.(*remoteDestination); isRemote || b.size >= 0 {
		if there, err := j.to.Has(ctx, b.digest, b.size); err != nil || there {
			return err
		}
	}
	return j.patience().Resend(ctx, func() (err error) {
		told := j.moving(b)
		defer func() { told.End(err) }()
		body, size, err := b.open(ctx)
		if err != nil {
			return err
		}
		defer body.Close()
		if b.size >= 0 && size >= 0 && size != b.size {
			return sizeError(b, size)
		}
		size = max(size, b.size)
		_, err = put(ctx, j.to, identity{b.digest, size}, func(w io.Writer) error {
			src := io.TeeReader(streamio.WithContext(ctx, body), told)
			if size >= 0 {
				src = io.LimitReader(src, size+1) // one byte too many is enough to see it
			}
			_, err := streamio.Copy(w, src)
			return err
		})
		return kimg.Wrap(b.digest.String(), err)
	})
}

// unchanged tells whether every image of an index stayed what it was.
func unchanged(images []Result) bool {
	for _, r := range images {
		if r.OldDigest != r.NewDigest {
			return false
		}
	}
	return true
}

// kept reports whether images of a format stay in it where that can be held. Registries of today refuse schema 1.
func (j *job) kept(from convert.Format) bool {
	_, remote := j.to.(*remoteDestination)
	return j.o.Keep && (from != convert.DockerV2S1 || j.o.PreserveDigests || !remote)
}
