package store

import (
	"cmp"
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
func (tx *Tx) PutList(_ context.Context, rec ListRecord) error {
	_, err := tx.putList(rec)
	return err
}

// listPut is a list that a change puts.
type listPut struct {
	*imagePut
	index     digest.Digest
	instances map[digest.Digest]string
	step      int // of the change
}

// putList registers a list, whose record [Tx.holdLists] completes.
func (tx *Tx) putList(rec ListRecord) (*imagePut, error) {
	v, err := convert.ParseIndex(rec.Index)
	if err != nil {
		return nil, err
	}
	documents, err := listDocuments(v, rec.Data)
	if err != nil {
		return nil, err
	}
	for d, image := range rec.Instances {
		if !slices.ContainsFunc(v.Manifests, func(m ispec.Descriptor) bool { return m.Digest == d }) || !isHexID(image) {
			return nil, kimg.Errorf(kimg.ErrInvalid, kimg.Quote(d.String()), "not an instance of the index")
		}
	}
	p := &imagePut{s: tx.s, rec: ImageRecord{
		Manifest: rec.Index, ManifestType: v.MediaType, Names: rec.Names, Signatures: rec.Signatures, About: rec.About, list: &listData{Documents: documents},
	}}
	tx.lists = append(tx.lists, listPut{p, digest.FromBytes(rec.Index), rec.Instances, len(tx.steps)})
	tx.put(p)
	return p, nil
}

// holdLists holds the lists that the change puts, as whoever changes one does, and looks what the store has of them. It does so
// when everything is staged and for all in one order: two changes that each held a list the other wants would wait for ever.
func (tx *Tx) holdLists(ctx context.Context) error {
	for _, l := range slices.SortedFunc(slices.Values(tx.lists), func(a, b listPut) int { return cmp.Compare(a.index, b.index) }) {
		if err := tx.lock(ctx, l.index); err != nil {
			return err
		}
	}
	for _, l := range tx.lists {
		if err := l.complete(ctx); err != nil {
			return err
		}
		tx.steps[l.step].what = "image " + l.rec.ID()
	}
	return nil
}

// complete adds what the store knows to the record.
func (l listPut) complete(ctx context.Context) error {
	id, old, err := l.s.listID(l.index)
	if err != nil {
		return err
	}
	all := map[digest.Digest]string{"": id}
	if old != nil {
		known, err := l.s.image(old).instances(ctx)
		if err != nil {
			return err
		}
		maps.Copy(all, known)
	}
	for d, image := range l.instances {
		all[d] = l.s.reference(image)
	}
	l.rec.list.ID = id
	l.rec.list.Documents[instancesKey], err = strict.Marshal(all)
	return err
}

// PutList records an image index as it is, byte for byte, in the form of podman's manifest lists. Names move from the
// images that had them. When the store has the list already, names, instances and data are added to it. Class integrity for
// data of another digest, invalid for an instance that the index does not name.
func (s *Store) PutList(ctx context.Context, rec ListRecord) (*Image, error) {
	var p *imagePut
	err := s.Change(ctx, "put list", func(_ context.Context, tx *Tx) (err error) {
		p, err = tx.putList(rec)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.reread(p.rec.ID())
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
