package store_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containers/storage"
	drivers "github.com/containers/storage/drivers"
	"github.com/containers/storage/pkg/archive"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/layerdiff/view"
	"github.com/kimg/kimg/store"
)

// partDiffer stages a layer as a pull in parts does: its record has the digest of a table of contents, not of a tar.
type partDiffer struct {
	t     *testing.T
	from  string
	split bool // keeps how the tar was packed
	blob  *layerdiff.Blob
}

func (d partDiffer) ApplyDiff(dest string, _ *archive.TarOptions, _ *drivers.DifferOptions) (drivers.DriverWithDifferOutput, error) {
	record, err := store.TarSplitFile(dest)
	must(d.t, err)
	*d.blob, err = layerdiff.Stage(d.t.Context(), dest, record, view.Stack{Upper: d.from}, layerdiff.Options{})
	out := drivers.DriverWithDifferOutput{TOCDigest: digest.FromString("table"), Size: -1, UIDs: d.blob.UIDs, GIDs: d.blob.GIDs}
	if d.split {
		out.TarSplit = record
	} else {
		record.Close()
	}
	return out, err
}

func (partDiffer) Close() error { return nil }

// A layer that was pulled in parts has no digest in its record: the image's configuration has. It is exported and committed
// on when what comes out is that, with the record of how its tar was packed or without.
func TestLayersPulledInParts(t *testing.T) {
	for _, c := range []struct {
		name         string
		split, other bool // other: the image names another digest
		want         kimg.Class
	}{{"with record", true, false, ""}, {"without record", false, false, ""}, {"other with record", true, true, kimg.ErrIntegrity}, {"other without record", false, true, kimg.ErrIntegrity}} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			ts := newStore(t)
			from := t.TempDir()
			must(t, os.WriteFile(filepath.Join(from, "f"), []byte("content"), 0o644))
			var blob layerdiff.Blob
			st := ts.Storage()
			out, err := st.PrepareStagedLayer(&drivers.ApplyDiffWithDifferOpts{}, partDiffer{t, from, c.split, &blob})
			must(t, err)
			clean := *out
			const id = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
			l, err := st.ApplyStagedLayer(storage.ApplyStagedLayerOptions{ID: id, DiffOutput: out})
			must(t, err)
			must(t, st.CleanupStagedLayer(&clean))
			if l.UncompressedDigest != "" || l.TOCDigest == "" {
				t.Fatalf("%+v", l)
			}
			var tar bytes.Buffer
			if err := ts.ExportLayer(ctx, id, &tar); kimg.ClassOf(err) != kimg.ErrUnsupported {
				t.Errorf("nobody says what it must be: %v", err)
			}
			diffID := blob.DiffID
			if c.other {
				diffID = digest.FromString("other")
			}
			img, err := ts.PutImage(ctx, record(t, "x", id, []string{"parts"}, diffID))
			must(t, err)
			tar.Reset()
			err = ts.ExportLayer(ctx, id, &tar)
			if kimg.ClassOf(err) != c.want || err == nil && digest.FromBytes(tar.Bytes()) != blob.DiffID {
				t.Errorf("export: %v, %d bytes", err, tar.Len())
			}
			if c.want != "" && !c.split && !strings.Contains(err.Error(), "pull the image again") {
				t.Errorf("%v", err)
			}
			ctr, err := ts.NewContainer(ctx, img, store.ContainerOptions{})
			must(t, err)
			must(t, ctr.WithMount(ctx, func(root string) error { return os.WriteFile(filepath.Join(root, "new"), nil, 0o644) }))
			before := ts.inventory(t)
			r, err := commit.Container(ctx, ts.Store, ctr.ID, commit.Options{Names: []string{"committed"}})
			if kimg.ClassOf(err) != c.want {
				t.Errorf("commit: %v", err)
			}
			if err != nil && ts.inventory(t) != before {
				t.Error(diff(before, ts.inventory(t)))
			}
			if err == nil && (len(r.DiffIDs) != 2 || r.DiffIDs[0] != blob.DiffID) {
				t.Errorf("%+v", r)
			}
		})
	}
}
