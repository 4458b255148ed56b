package commit

import (
	"context"
	"encoding/json"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/store"
)

// list adds an image that the same change records to the manifest list of the options.
func (p *plan) list(ctx context.Context, tx *store.Tx, rec store.ImageRecord) error {
	if p.o.Manifest == "" {
		return nil
	}
	var config ispec.Image
	if err := json.Unmarshal(rec.Config, &config); err != nil {
		return kimg.Errorf(kimg.ErrInvalid, "configuration", "%w", err)
	}
	d := ispec.Descriptor{
		MediaType: rec.ManifestType, Digest: digest.FromBytes(rec.Manifest), Size: int64(len(rec.Manifest)), Platform: &config.Platform,
	}
	_, err := tx.EditList(ctx, store.ListEdit{Ref: p.o.Manifest, Create: true, Edit: func(index []byte) (list store.ListRecord, err error) {
		list.Index, err = convert.SetInIndex(index, d, nil)
		list.Instances = map[digest.Digest]string{d.Digest: rec.ID()}
		return list, err
	}})
	return err
}
