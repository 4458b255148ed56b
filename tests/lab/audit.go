package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/containers/storage"
	"github.com/containers/storage/pkg/archive"
	digest "github.com/opencontainers/go-digest"
)

// Audit is what the storage library finds in a store, without kimg's help.
type Audit struct {
	Images     map[string]AuditImage // by name
	Containers map[string]string     // name -> layer
	Wrong      []string              // whatever is not as it must be: each a sentence
}

// AuditImage is one image whose record is complete and whose every layer was read and has its digest.
type AuditImage struct {
	ID      string
	DiffIDs []string // base first
}

// Audit reads every byte of every image and looks for remains of interrupted work.
func (s *Store) Audit() Audit {
	s.t.Helper()
	var a Audit
	if err := json.Unmarshal([]byte(Helper(s.t, "audit", s.Root, s.RunRoot)), &a); err != nil {
		s.t.Fatal(err)
	}
	return a
}

// Sound fails the test when an audit found something wrong, and returns the audit.
func (s *Store) Sound(when string) Audit {
	s.t.Helper()
	a := s.Audit()
	for _, w := range a.Wrong {
		s.t.Errorf("%s: %s", when, w)
	}
	return a
}

// audit is a helper: it prints an [Audit] of a store.
func audit(root string, args []string) (err error) {
	st, err := storage.GetStore(storage.StoreOptions{GraphRoot: root, RunRoot: args[0], GraphDriverName: "overlay"})
	if err != nil {
		return err
	}
	defer st.Free()
	a := Audit{Images: map[string]AuditImage{}, Containers: map[string]string{}}
	complain := func(format string, args ...any) { a.Wrong = append(a.Wrong, fmt.Sprintf(format, args...)) }
	used := map[string]bool{}
	use := func(top string) (chain []*storage.Layer, err error) {
		for id := top; id != ""; {
			used[id] = true
			l, err := st.Layer(id)
			if err != nil {
				return nil, fmt.Errorf("layer %.12s: %w", id, err)
			}
			chain = append(chain, l)
			id = l.Parent
		}
		slices.Reverse(chain)
		return chain, nil
	}

	images, err := st.Images()
	if err != nil {
		return err
	}
	for _, img := range images {
		chain, err := use(img.TopLayer)
		if err != nil {
			complain("image %v: %v", img.Names, err)
		}
		for _, mapped := range img.MappedTopLayers {
			used[mapped] = true
		}
		done := AuditImage{ID: img.ID}
		for _, l := range chain {
			done.DiffIDs = append(done.DiffIDs, l.UncompressedDigest.String())
			if err := readLayer(st, l); err != nil {
				complain("image %v: %v", img.Names, err)
			}
		}
		if err := readRecord(st, img, done.DiffIDs); err != nil {
			complain("image %v: %v", img.Names, err)
		}
		for _, n := range img.Names {
			a.Images[n] = done
		}
	}
	containers, err := st.Containers()
	if err != nil {
		return err
	}
	for _, c := range containers {
		if _, err := use(c.LayerID); err != nil {
			complain("container %v: %v", c.Names, err)
		}
		if len(c.Names) > 0 {
			a.Containers[c.Names[0]] = c.LayerID
		}
	}
	layers, err := st.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		if !used[l.ID] {
			complain("layer %.12s belongs to nothing", l.ID)
		}
	}
	for _, pattern := range []string{"overlay/staging/*", "kimg/intent-*", "kimg/recorded-*", "kimg/failed-*", "overlay-layers/*/incomplete"} {
		left, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		for _, l := range left {
			if info, err := os.Stat(l); err == nil && !(info.Mode().IsRegular() && filepath.Ext(l) == ".lock") {
				complain("%s is left", l)
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(a)
}

// readLayer streams a layer as other tools get it and holds it against its digest. This is what finds a layer that its
// record calls complete and whose files are empty.
func readLayer(st storage.Store, l *storage.Layer) (err error) {
	none := archive.Uncompressed
	r, err := st.Diff(l.Parent, l.ID, &storage.DiffOptions{Compression: &none})
	if err != nil {
		return fmt.Errorf("layer %.12s: %w", l.ID, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	v := digest.SHA256.Digester()
	if _, err := io.Copy(v.Hash(), r); err != nil {
		return fmt.Errorf("layer %.12s: %w", l.ID, err)
	}
	if v.Digest() != l.UncompressedDigest {
		return fmt.Errorf("layer %.12s reads as %s, its record says %s", l.ID, v.Digest(), l.UncompressedDigest)
	}
	return nil
}

// readRecord holds manifest, configuration and layers of an image against each other.
func readRecord(st storage.Store, img storage.Image, diffIDs []string) error {
	manifest, err := st.ImageBigData(img.ID, storage.ImageDigestBigDataKey)
	if err != nil {
		return err
	}
	var m struct {
		Config struct{ Digest digest.Digest }
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if img.Digest != digest.FromBytes(manifest) {
		return fmt.Errorf("the manifest's digest is not %s", img.Digest)
	}
	config, err := st.ImageBigData(img.ID, m.Config.Digest.String())
	if err != nil {
		return err
	}
	if digest.FromBytes(config) != m.Config.Digest {
		return fmt.Errorf("the configuration's digest is not %s", m.Config.Digest)
	}
	var c struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if !slices.Equal(c.RootFS.DiffIDs, diffIDs) {
		return fmt.Errorf("the configuration names layers %v, the store holds %v", c.RootFS.DiffIDs, diffIDs)
	}
	return nil
}
