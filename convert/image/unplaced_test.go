package image

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/store"
)

// B15: the first image of an index without a platform is taken where no other fits, and only for what its configuration says.
func TestUnplaced(t *testing.T) {
	const nowhere = `,"platform":{"os":"unknown","architecture":"unknown"}`
	of := map[string]testimage.Image{}
	for i, arch := range []string{"amd64", "arm64", "s390x"} {
		of[arch] = testimage.NewImage(uint64(i), testimage.ImageOptions{Change: func(c map[string]any) { c["architecture"] = arch }})
	}
	for name, c := range map[string]struct {
		entries []string // architecture and the rest of the entry
		want    string
	}{
		"last":      {[]string{"amd64", `arm64,"platform":{"os":"linux","architecture":"amd64"}`}, "arm64"},
		"alone":     {[]string{`arm64,"platform":{"os":"linux","architecture":"arm64"}`, "amd64"}, "amd64"},
		"the first": {[]string{"amd64" + nowhere, `amd64,"artifactType":"application/x"`, "amd64", "arm64"}, "amd64"},
		"another":   {[]string{"arm64", "amd64"}, ""},
		"none":      {[]string{"amd64" + nowhere, `amd64,"artifactType":"application/x"`}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, st := t.TempDir(), newStore(t)
			var entries []string
			for _, e := range c.entries {
				arch, rest, _ := strings.Cut(e, ",")
				img := of[arch]
				check(t, img.WriteOCI(dir+"/in", arch))
				if rest != "" {
					rest = "," + rest
				}
				entries = append(entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d%s}`, img.ManifestType, testimage.Digest(img.Manifest), len(img.Manifest), rest))
			}
			index := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ispec.MediaTypeImageIndex, strings.Join(entries, ","))
			check(t, os.WriteFile(layoutBlob(dir+"/in", testimage.Digest([]byte(index))), []byte(index), 0o644))
			check(t, os.WriteFile(filepath.Join(dir, "in/index.json"), fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
				ispec.MediaTypeImageIndex, testimage.Digest([]byte(index)), len(index)), 0o644))
			src := "oci:" + dir + "/in"
			o := Options{Platform: &ispec.Platform{OS: "linux", Architecture: "amd64"}, Store: func() (*store.Store, error) { return st, nil }}
			want := ""
			if c.want != "" {
				want = testimage.Digest(of[c.want].Manifest)
			}
			held := func(what, digest string, err error) {
				t.Helper()
				if digest != want || want == "" && kimg.ClassOf(err) != kimg.ErrNotFound {
					t.Errorf("%s: %s, %v", what, digest, err)
				}
			}
			for _, keep := range []bool{false, true} {
				o.Keep = keep
				for _, dst := range []string{fmt.Sprintf("oci:%s/%t", dir, keep), "containers-storage:one"} {
					r, err := converter(t, o).try(t, src, dst)
					held(dst, string(r.OldDigest), err)
				}
			}
			d, err := converter(t, o).Inspect(t.Context(), ref(t, src))
			held("inspect", string(d.Digest), err)
			if _, err := tarOf(t, o, src); (err == nil) != (want != "") {
				t.Errorf("tree: %v", err)
			}
			if name == "none" { // nothing of it is unpacked
				return
			}
			converter(t, Options{Keep: true, Store: o.Store}).must(t, src, "containers-storage:all")
			img, err := st.Choose(t.Context(), "all", o.Platform)
			switch {
			case want == "" && kimg.ClassOf(err) != kimg.ErrUnsupported:
				t.Errorf("from the store: %v", err)
			case want != "" && (err != nil || img.ID != testimage.Digest(of[c.want].Config)[7:]):
				t.Errorf("from the store: %+v, %v", img, err)
			}
		})
	}
}
