package store

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/internal/strict"
)

const (
	instancesKey = "instances.json"  // of a list's big data, as podman has it: digest -> where the instance is
	maxInstances = 4 << 20           // bytes of it
	maxListData  = 64 << 20          // bytes of everything a list keeps besides
	listMetadata = `{"kimg":"list"}` // the list is ours: the instances without names go with it
)

// ListRecord is an image index as it is put into the store: in the form of podman's manifest lists, with what of it is no
// image (attestations) kept as data.
type ListRecord struct {
	Names     []string
	Index     []byte                   // an OCI index or a Docker manifest list
	Instances map[digest.Digest]string // digest of a manifest of the index -> ID of the image of this store
	Data      map[digest.Digest][]byte // other manifests of the index, and the blobs they name

	Signatures map[digest.Digest][][]byte // of the index and of what is data; see [ImageRecord]
	About      []byte                     // an OCI index of manifests about the index and its images, which lie in Data
}

// listData is what the record of a list has instead of a configuration.
type listData struct {
	ID        string            `json:"id"`
	Documents map[string][]byte `json:"documents"` // by their keys

	Edited bool          `json:"edited,omitempty"` // in its place
	Was    digest.Digest `json:"was,omitempty"`    // the digest of its index before; empty: it is new
}

// PutList registers the record of a manifest list; see [Store.PutList]. Its instances are images of the store, or are
// registered before it.
func (tx *Tx) PutList(ctx context.Context, rec ListRecord) error {
	_, err := tx.putList(ctx, rec)
	return err
}

// putList holds the list as whoever changes it does.
func (tx *Tx) putList(ctx context.Context, rec ListRecord) (id string, err error) {
	err = tx.lock(ctx, digest.FromBytes(rec.Index))
	if err != nil {
		return "", err
	}
	put, err := tx.s.listRecord(ctx, rec)
	if err != nil {
		return "", err
	}
	tx.PutImage(put)
	return put.ID(), nil
}

// PutList records an image index as it is, byte for byte, in the form of podman's manifest lists. Names move from the
// images that had them. When the store has the list already, names, instances and data are added to it. Class integrity for
// data of another digest, invalid for an instance that the index does not name.
func (s *Store) PutList(ctx context.Context, rec ListRecord) (*Image, error) {
	var id string
	err := s.Change(ctx, "put list", func(ctx context.Context, tx *Tx) (err error) {
		id, err = tx.putList(ctx, rec)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.reread(id)
}

func (s *Store) listRecord(ctx context.Context, rec ListRecord) (ImageRecord, error) {
	v, err := convert.ParseIndex(rec.Index)
	if err != nil {
		return ImageRecord{}, err
	}
	d := digest.FromBytes(rec.Index)
	id, old, err := s.listID(d)
	if err != nil {
		return ImageRecord{}, err
	}
	documents, err := listDocuments(v, rec.Data)
	if err != nil {
		return ImageRecord{}, err
	}
	instances := map[digest.Digest]string{"": id}
	if old != nil {
		known, err := s.image(old).instances(ctx)
		if err != nil {
			return ImageRecord{}, err
		}
		maps.Copy(instances, known)
	}
	for d, image := range rec.Instances {
		if !slices.ContainsFunc(v.Manifests, func(m ispec.Descriptor) bool { return m.Digest == d }) || !isHexID(image) {
			return ImageRecord{}, kimg.Errorf(kimg.ErrInvalid, kimg.Quote(d.String()), "not an instance of the index")
		}
		instances[d] = s.reference(image)
	}
	if documents[instancesKey], err = strict.Marshal(instances); err != nil {
		return ImageRecord{}, err
	}
	return ImageRecord{Manifest: rec.Index, ManifestType: v.MediaType, Names: rec.Names, Signatures: rec.Signatures, About: rec.About, list: &listData{ID: id, Documents: documents}}, nil
}

// listDocuments checks what a list keeps besides images.
func listDocuments(v convert.IndexView, all map[digest.Digest][]byte) (map[string][]byte, error) {
	documents := map[string][]byte{}
	var total int
	for d, data := range all {
		if d.Validate() != nil || d.Algorithm().FromBytes(data) != d {
			return nil, kimg.Errorf(kimg.ErrIntegrity, kimg.Quote(d.String()), "blob-digest: data of a list with another digest")
		}
		if total += len(data); total > maxListData {
			return nil, kimg.Errorf(kimg.ErrLimit, "list", "too-big: more than %d bytes besides images", maxListData)
		}
		documents[dataKey(v, d)] = data
	}
	return documents, nil
}

// listID is the ID of a list: the hex digest of its index, unless a list that has become another one has it. The record
// comes along when there is one.
func (s *Store) listID(d digest.Digest) (string, *storage.Image, error) {
	for id := d.Encoded(); ; id = digest.FromString(id).Encoded() {
		old, err := s.exactImage(id)
		if err != nil || old == nil || old.BigDataDigests[storage.ImageDigestBigDataKey] == d {
			return id, old, err
		}
	}
}

// reference names an image of this store as containers/image does.
func (s *Store) reference(id string) string {
	return "containers-storage:[" + s.st.GraphDriverName() + "@" + s.st.GraphRoot() + "+" + s.st.RunRoot() + "]@" + id
}

// dataKey is where a list keeps a document: a manifest where containers/image looks for it.
func dataKey(v convert.IndexView, d digest.Digest) string {
	if slices.ContainsFunc(v.Manifests, func(m ispec.Descriptor) bool { return m.Digest == d && convert.IsManifest(m) }) {
		return manifestKey(d)
	}
	return d.String()
}

// ownInstances are the images that go with a list: those nobody else leads to. None go with a list that podman made.
func (s *Store) ownInstances(ctx context.Context, rec *storage.Image) (ids []string, err error) {
	var whose struct{ Kimg string }
	if json.Unmarshal([]byte(rec.Metadata), &whose) != nil || whose.Kimg != "list" {
		return nil, nil
	}
	records, err := s.st.Images()
	if err != nil {
		return nil, wrap("images", err)
	}
	elsewhere := map[digest.Digest]bool{} // named by other lists
	var here map[digest.Digest]string
	for i := range records {
		list := s.image(&records[i])
		if !list.IsList() {
			continue
		}
		all, err := list.instances(ctx)
		if err != nil {
			return nil, err
		}
		if list.ID == rec.ID {
			here = all
			continue
		}
		for d := range all {
			elsewhere[d] = true
		}
	}
	for d := range here {
		img, err := s.manifestOwner(d)
		if err != nil {
			return nil, err
		}
		if img == nil || img.ReadOnly || len(img.Names) > 0 || slices.ContainsFunc(img.Digests, func(d digest.Digest) bool { return elsewhere[d] }) {
			continue
		}
		if users, err := s.containersOf(img.ID); err != nil || len(users) > 0 {
			if err != nil {
				return nil, err
			}
			continue
		}
		ids = append(ids, img.ID)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}
