package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
)

// entry is one member of a test's tar. A link's target is its content.
type entry struct {
	name, content string
	kind          byte
}

func file(name, content string) entry { return entry{name, content, tar.TypeReg} }
func link(name, target string) entry  { return entry{name, target, tar.TypeSymlink} }

func pack(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := tar.Header{Name: e.name, Typeflag: e.kind, Mode: 0o644}
		if e.kind == tar.TypeReg {
			h.Size = int64(len(e.content))
		} else {
			h.Linkname = e.content
		}
		must(t, w.WriteHeader(&h))
		if e.kind == tar.TypeReg {
			_, err := io.WriteString(w, e.content)
			must(t, err)
		}
	}
	must(t, w.Close())
	return b.Bytes()
}

func save(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive.tar")
	must(t, os.WriteFile(path, data, 0o600))
	return path
}

// dockerEntries is an image as docker save writes it since 1.10.
func dockerEntries(img testimage.Image, tags ...string) []entry {
	it := item{Config: "config.json", RepoTags: tags}
	all := []entry{file("config.json", string(img.Config))}
	for i, l := range img.Layers {
		name := fmt.Sprintf("%d/layer.tar", i)
		it.Layers = append(it.Layers, name)
		all = append(all, file(name, string(l.Blob)))
	}
	list, _ := json.Marshal([]item{it})
	return append(all, file("manifest.json", string(list)))
}

// legacyEntries is an image as Docker wrote it before 1.10, and its ids, base first. The second layer is a link to the first.
func legacyEntries(layers ...string) (entries []entry, ids []string) {
	first := map[string]string{}
	for i, l := range layers {
		id := fmt.Sprintf("%064x", i+1)
		doc := map[string]any{"id": id, "created": "2015-01-01T00:00:00Z", "os": "linux", "x": "<&>"}
		if i > 0 {
			doc["parent"] = ids[i-1]
		}
		raw, _ := json.MarshalIndent(doc, "", " ")
		entries = append(entries, entry{id + "/", "", tar.TypeDir}, file(id+"/VERSION", "1.0"), file(id+"/json", string(raw)))
		if of, twice := first[l]; twice {
			entries = append(entries, link(id+"/layer.tar", "../"+of+"/layer.tar"))
		} else {
			entries = append(entries, file(id+"/layer.tar", l))
			first[l] = id
		}
		ids = append(ids, id)
	}
	return entries, ids
}

func TestReadDocker(t *testing.T) {
	for name, o := range map[string]testimage.ImageOptions{"plain": {Layers: 3, Docker: true}, "gzip": {Layers: 2, Docker: true, Gzip: true}} {
		t.Run(name, func(t *testing.T) {
			img := testimage.NewImage(1, o)
			plain := pack(t, dockerEntries(img, "example.org/a:b", "busybox")...)
			var gz, zs bytes.Buffer
			zw := gzip.NewWriter(&gz)
			zw.Write(plain)
			must(t, zw.Close())
			sw, _ := zstd.NewWriter(&zs)
			sw.Write(plain)
			must(t, sw.Close())
			for _, data := range [][]byte{plain, gz.Bytes(), zs.Bytes()} {
				for _, ref := range []string{"", "@0", "example.org/a:b", "docker.io/library/busybox:latest", "busybox"} {
					s, err := OpenDocker(t.Context(), save(t, data), ref, Options{TempDir: t.TempDir()})
					if err != nil {
						t.Fatalf("%q: %v", ref, err)
					}
					check(t, s, img)
					must(t, s.Close())
				}
			}
		})
	}
}

// check expects the image's own manifest: for a docker-archive it is made again, to the byte.
func check(t *testing.T, s *Source, img testimage.Image) {
	t.Helper()
	m, err := s.Manifest(t.Context())
	var got, want any
	if err != nil || json.Unmarshal(m, &got) != nil || json.Unmarshal(img.Manifest, &want) != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v\n%s, want\n%s", err, m, img.Manifest)
	}
	for _, l := range img.Layers {
		readBlob(t, s, l.Digest, l.Blob)
	}
	readBlob(t, s, testimage.Digest(img.Config), img.Config)
	if _, _, err := s.Blob(t.Context(), digest.FromString("nothing")); kimg.ClassOf(err) != kimg.ErrNotFound || !strings.Contains(err.Error(), "blob-missing") {
		t.Errorf("a blob that is not there: %v", err)
	}
}

func readBlob(t *testing.T, s *Source, d string, want []byte) {
	t.Helper()
	r, size, err := s.Blob(t.Context(), digest.Digest(d))
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || size != int64(len(want)) || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, size %d, want %d, %v", d, len(got), size, len(want), err)
	}
}

func TestReadLegacy(t *testing.T) {
	a, b := string(testimage.NewImage(1, testimage.ImageOptions{}).Layers[0].Tar), string(testimage.NewImage(2, testimage.ImageOptions{}).Layers[0].Tar)
	entries, ids := legacyEntries(a, b, a)
	entries = append(entries, file("repositories", fmt.Sprintf(`{"example.org:5000/team/app":{"1.0":"%s","old":"%s"},"busybox":{"latest":"%s"}}`, ids[2], ids[0], ids[2])))
	path := save(t, pack(t, entries...))
	for ref, want := range map[string]struct {
		name, tag string
		layers    int
	}{
		"example.org:5000/team/app:1.0": {"team/app", "1.0", 3},
		"example.org:5000/team/app:old": {"team/app", "old", 1},
		"busybox":                       {"library/busybox", "latest", 3},
		"@0":                            {"library/busybox", "latest", 3},
	} {
		s, err := OpenDocker(t.Context(), path, ref, Options{})
		if err != nil {
			t.Fatal(err)
		}
		var m struct {
			SchemaVersion            int
			Name, Tag, Architecture  string
			FSLayers                 []struct{ BlobSum string }
			History                  []struct{ V1Compatibility string }
			Signatures, Config, Else any
		}
		raw, err := s.Manifest(t.Context())
		if err != nil || json.Unmarshal(raw, &m) != nil || m.SchemaVersion != 1 || m.Name != want.name || m.Tag != want.tag || m.Architecture != "amd64" || len(m.FSLayers) != want.layers {
			t.Fatalf("%s: %v %s", ref, err, raw)
		}
		for i, h := range m.History { // top first
			at := want.layers - 1 - i
			if j := slices.IndexFunc(entries, func(e entry) bool { return e.name == ids[at]+"/json" }); h.V1Compatibility != entries[j].content {
				t.Errorf("history %d is %s", i, h.V1Compatibility)
			}
			readBlob(t, s, m.FSLayers[i].BlobSum, []byte([]string{a, b, a}[at]))
		}
		again, err := OpenDocker(t.Context(), path, ref, Options{})
		must(t, err)
		if raw2, _ := again.Manifest(t.Context()); !bytes.Equal(raw, raw2) {
			t.Error("other bytes the second time")
		}
		s.Close()
		again.Close()
	}
}

func TestReadOCI(t *testing.T) {
	dir := t.TempDir()
	one, two := testimage.NewImage(1, testimage.ImageOptions{Layers: 2}), testimage.NewImage(2, testimage.ImageOptions{Gzip: true})
	must(t, one.WriteOCI(dir, "one"))
	must(t, two.WriteOCI(dir, "two"))
	path := filepath.Join(t.TempDir(), "x.tar")
	if out, err := exec.Command("tar", "-C", dir, "-cf", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for name, img := range map[string]testimage.Image{"one": one, "@1": two} {
		s, err := OpenOCI(t.Context(), path, name, Options{})
		must(t, err)
		check(t, s, img)
		m, err := s.ManifestByDigest(t.Context(), digest.FromBytes(img.Manifest))
		if err != nil || !bytes.Equal(m, img.Manifest) {
			t.Errorf("%v", err)
		}
		must(t, s.Close())
	}
}

// TestHybrid reads one file both ways: docker save since 25 writes a layout with a manifest.json.
func TestHybrid(t *testing.T) {
	img := testimage.NewImage(3, testimage.ImageOptions{Layers: 2, Docker: true, Gzip: true})
	dir := t.TempDir()
	must(t, img.WriteOCI(dir, "latest"))
	it := item{Config: "blobs/sha256/" + testimage.Digest(img.Config)[7:], RepoTags: []string{"x:latest"}}
	for _, l := range img.Layers {
		it.Layers = append(it.Layers, "blobs/sha256/"+l.Digest[7:])
	}
	list, _ := json.Marshal([]item{it})
	must(t, os.WriteFile(filepath.Join(dir, "manifest.json"), list, 0o600))
	path := filepath.Join(t.TempDir(), "x.tar")
	if out, err := exec.Command("tar", "-C", dir, "-cf", path, "manifest.json", "index.json", "oci-layout", "blobs").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	d, err := OpenDocker(t.Context(), path, "x", Options{})
	must(t, err)
	check(t, d, img)
	must(t, d.Close())
	o, err := OpenOCI(t.Context(), path, "latest", Options{})
	must(t, err)
	check(t, o, img)
	must(t, o.Close())
}

// TestHybridsThatDisagree: what two readers would read differently is refused by each of them.
func TestHybridsThatDisagree(t *testing.T) {
	one, two := testimage.NewImage(3, testimage.ImageOptions{Docker: true}), testimage.NewImage(4, testimage.ImageOptions{Layers: 2})
	for name, c := range map[string]struct {
		list  string // of manifest.json, with the configurations and the layers of both
		names [2]string
		drop  string // what is not in the archive
		word  string // empty: they agree
	}{
		"both":                {`[{"Config":"C1","RepoTags":["a:1"],"Layers":["L1"]},{"Config":"C2","Layers":["L2"]}]`, [2]string{"docker.io/library/a:1", "localhost/b:1"}, "", ""},
		"less":                {`[{"Config":"C1","RepoTags":["a:1"],"Layers":["L1"]}]`, [2]string{"a:1", "b:1"}, "", ""},
		"none":                {`[]`, [2]string{"a:1", "b:1"}, "", ""},
		"another name":        {`[{"Config":"C1","RepoTags":["more:1"],"Layers":["L1"]}]`, [2]string{"1", "b:1"}, "", ""},
		"bytes, not the name": {`[{"Config":"c.json","RepoTags":["a:1"],"Layers":["L1"]}]`, [2]string{"a:1", "b:1"}, "", ""},
		"a name":              {`[{"Config":"C2","RepoTags":["a:1"],"Layers":["L2"]}]`, [2]string{"a:1", "b:1"}, "", `called "docker.io/library/a:1"`},
		"names exchanged":     {`[{"Config":"C1","RepoTags":["b:1"]},{"Config":"C2","RepoTags":["a:1"]}]`, [2]string{"a:1", "b:1"}, "", "ambiguous"},
		"another image":       {`[{"Config":"other.json","RepoTags":["a:1"],"Layers":["L1"]}]`, [2]string{"a:1", "b:1"}, "", "does not have"},
		"unnamed":             {`[{"Config":"other.json","Layers":["L1"]}]`, [2]string{"a:1", "b:1"}, "", "does not have"},
		"no config":           {`[{"Config":"nosuch","Layers":["L1"]}]`, [2]string{"a:1", "b:1"}, "", "not in the archive"},
		"no list":             {`{}`, [2]string{"a:1", "b:1"}, "", "json-type"},
		"damaged":             {`[{"Config":"C1","RepoTags":["a:1"],"Layers":["L1"]}]`, [2]string{"x:1", "b:1"}, testimage.Digest(one.Manifest), ""}, // told when it is read
		"another damaged":     {`[{"Config":"other.json","RepoTags":["b:1"],"Layers":["L1"]}]`, [2]string{"x:1", "b:1"}, testimage.Digest(one.Manifest), `called "docker.io/library/b:1"`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, one.WriteOCI(dir, c.names[0]))
			must(t, two.WriteOCI(dir, c.names[1]))
			blob := func(d string) string { return "blobs/sha256/" + d[7:] }
			list := strings.NewReplacer("C1", blob(testimage.Digest(one.Config)), "C2", blob(testimage.Digest(two.Config)), "L1", blob(one.Layers[0].Digest), "L2", blob(two.Layers[0].Digest)).Replace(c.list)
			for file, text := range map[string]string{"manifest.json": list, "c.json": string(one.Config), "other.json": string(one.Config) + " "} {
				must(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
			}
			if c.drop != "" {
				must(t, os.Remove(filepath.Join(dir, blob(c.drop))))
			}
			path := filepath.Join(t.TempDir(), "x.tar")
			if out, err := exec.Command("tar", "-C", dir, "-cf", path, ".").CombinedOutput(); err != nil {
				t.Fatalf("%v %s", err, out)
			}
			temp := t.TempDir()
			for reader, open := range map[string]func() (io.Closer, error){
				"all":    func() (io.Closer, error) { return Open(t.Context(), path, Options{TempDir: temp}) },
				"oci":    func() (io.Closer, error) { return OpenOCI(t.Context(), path, "@1", Options{TempDir: temp}) },
				"docker": func() (io.Closer, error) { return OpenDocker(t.Context(), path, "@0", Options{TempDir: temp}) },
			} {
				got, err := open()
				switch {
				case err == nil:
					must(t, got.Close())
					if c.word != "" {
						t.Errorf("%s: opened", reader)
					}
				case c.word == "" && (name != "none" || reader != "docker"), c.word != "" && (kimg.ClassOf(err) != kimg.ErrInvalid && name != "no config" || !strings.Contains(err.Error(), c.word)):
					t.Errorf("%s: %v", reader, err)
				}
			}
			same(t, nil, temp)
		})
	}
}

// TestHybridOfMany: whether the two descriptions agree takes a look at each image, and not at each of the one for each of the other.
func TestHybridOfMany(t *testing.T) {
	var index, list []string
	for i := range 4000 {
		tag := fmt.Sprintf("localhost/image-%d:1", i)
		index = append(index, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":1,"annotations":{"org.opencontainers.image.ref.name":%q}}`, testimage.Digest([]byte(tag)), tag))
		list = append(list, fmt.Sprintf(`{"Config":"c.json","RepoTags":[%q],"Layers":[]}`, tag))
	}
	path := filepath.Join(t.TempDir(), "x.tar")
	must(t, os.WriteFile(path, pack(t, file("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), file("c.json", strings.Repeat(" ", 4<<20)),
		file("index.json", `{"schemaVersion":2,"manifests":[`+strings.Join(index, ",")+`]}`), file("manifest.json", "["+strings.Join(list, ",")+"]")), 0o600))
	began := time.Now()
	a, err := Open(t.Context(), path, Options{TempDir: t.TempDir()})
	if took := time.Since(began); err != nil || len(a.Images) != 4000 || took > 10*time.Second {
		t.Fatalf("%v, %v", took, err)
	}
	must(t, a.Close())
}

// TestEachOfMany: what lists the images is read and parsed once, not again for each of them.
func TestEachOfMany(t *testing.T) {
	img := testimage.NewImage(5, testimage.ImageOptions{})
	blob := func(data []byte) entry { return file("blobs/sha256/"+testimage.Digest(data)[7:], string(data)) }
	old, ids := legacyEntries("one")
	for name, pack := range map[string]func(n int) []byte{
		"oci": func(n int) []byte {
			list := fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d}`, testimage.Digest(img.Manifest), len(img.Manifest))
			for i := range n {
				list += fmt.Sprintf(`,{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%064x","size":1}`, i)
			}
			return pack(t, blob(img.Manifest), file("index.json", `{"schemaVersion":2,"manifests":[`+list+`]}`))
		},
		"docker": func(n int) []byte {
			all := dockerEntries(img)
			list := &all[len(all)-1].content
			*list = strings.TrimSuffix(*list, "]") + strings.Repeat(`,{"Config":"c","Layers":["l"]}`, n) + "]"
			return pack(t, all...)
		},
		"legacy": func(n int) []byte {
			list := `{"a":{"1":"` + ids[0] + `"`
			for i := range n {
				list += fmt.Sprintf(`,"2%d":"%064x"`, i, 1000+i)
			}
			return pack(t, append(slices.Clone(old), file("repositories", list+"}}"))...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var allocs [2]float64
			for i, n := range []int{1, 2000} {
				a, err := Open(t.Context(), save(t, pack(n)), Options{})
				must(t, err)
				if len(a.Images) != n+1 {
					t.Errorf("%d images of %d", len(a.Images), n+1)
				}
				allocs[i] = testing.AllocsPerRun(3, func() {
					_, err := a.Image(t.Context(), 0)
					must(t, err)
				})
				must(t, a.Close())
			}
			if allocs[1] > 2*allocs[0] {
				t.Errorf("%v allocations to open one of two images, %v for one of two thousand", allocs[0], allocs[1])
			}
		})
	}
}

// TestSharedLayersOfMany: layers that several images have, and whose digests nobody says, are hashed once.
func TestSharedLayersOfMany(t *testing.T) {
	old, ids := legacyEntries("the base", "the top")
	img := testimage.NewImage(6, testimage.ImageOptions{Docker: true, Gzip: true})
	docker := dockerEntries(img)
	list := &docker[len(docker)-1].content
	*list = "[" + (*list)[1:len(*list)-1] + "," + (*list)[1:]
	for name, data := range map[string][]byte{
		"legacy": pack(t, append(old, file("repositories", `{"a":{"1":"`+ids[0]+`","2":"`+ids[1]+`"}}`))...),
		"docker": pack(t, docker...),
	} {
		t.Run(name, func(t *testing.T) {
			path := save(t, data)
			a, err := Open(t.Context(), path, Options{})
			must(t, err)
			defer a.Close()
			first, err := a.Image(t.Context(), 1)
			must(t, err)
			layer := []byte("the base")
			if name == "docker" {
				layer = img.Layers[0].Blob
			}
			at := bytes.Index(data, layer) + len(layer) - 1
			data[at] ^= 1 // so whoever reads it again has another digest
			must(t, os.WriteFile(path, data, 0o600))
			second, err := a.Image(t.Context(), 0)
			must(t, err)
			for d := range second.blobs {
				if _, ok := first.blobs[d]; !ok {
					t.Errorf("it was read again: %s", d)
				}
			}
		})
	}
}

func TestHostileArchives(t *testing.T) {
	img := testimage.NewImage(4, testimage.ImageOptions{Docker: true})
	good := dockerEntries(img, "a:1")
	layer := string(img.Layers[0].Tar)
	with := func(change func(e []entry) []entry) []byte { return pack(t, change(slices.Clone(good))...) }
	list := func(text string) []byte {
		return with(func(e []entry) []entry { e[len(e)-1].content = text; return e })
	}
	legacy := func(repos string, change func(e []entry) []entry) []byte {
		e, ids := legacyEntries(layer, "second")
		if change != nil {
			e = change(e)
		}
		return pack(t, append(e, file("repositories", strings.ReplaceAll(repos, "TOP", ids[1])))...)
	}
	const repos = `{"a":{"1":"TOP"}}`
	content := func(name, text string) func([]entry) []entry {
		return func(e []entry) []entry {
			for i := range e {
				if strings.HasSuffix(e[i].name, name) {
					e[i].content, e[i].kind = text, tar.TypeReg
				}
			}
			return e
		}
	}
	replace := func(name string, with entry) func([]entry) []entry {
		return func(e []entry) []entry {
			for i := range e {
				if strings.HasSuffix(e[i].name, name) {
					e[i] = entry{e[i].name, with.content, with.kind}
				}
			}
			return e
		}
	}
	id := func(n int) string { return fmt.Sprintf("%064x", n) }
	whole := pack(t, good...)
	huge := bytes.Clone(pack(t, file("x", ""))[:512])
	copy(huge[124:136], "77777777777\x00")
	checksum(huge)
	for name, c := range map[string]struct {
		data  []byte
		class kimg.Class
		word  string
	}{
		"empty":                 {nil, kimg.ErrInvalid, "not-an-image"},
		"garbage":               {bytes.Repeat([]byte("kimg"), 1000), kimg.ErrInvalid, "not-an-image"},
		"truncated in a member": {whole[:len(whole)/2/512*512+100], kimg.ErrIntegrity, "cut short"},
		"size beyond the end":   {huge, kimg.ErrIntegrity, "cut short"},
		"truncated gzip":        {gzipped(t, whole)[:300], kimg.ErrIntegrity, "layer-data"},
		"gzip and more":         {append(gzipped(t, whole), "more"...), kimg.ErrIntegrity, "layer-data"},
		"two of one name":       {pack(t, append(good, file("config.json", "{}"))...), kimg.ErrInvalid, "ambiguous"},
		"two, one with dot":     {pack(t, append(good, file("./manifest.json", "[]"))...), kimg.ErrInvalid, "ambiguous"},
		"nothing":               {pack(t, file("x", "")), kimg.ErrInvalid, "not-an-image"},
		"no images":             {list(`[]`), kimg.ErrInvalid, "not-an-image"},
		"null":                  {list(`null`), kimg.ErrInvalid, "not-an-image"},
		"an object":             {list(`{}`), kimg.ErrInvalid, "json-type"},
		"null image":            {list(`[null]`), kimg.ErrInvalid, "json-type"},
		"cut json":              {list(`[{"Config":"config.json"`), kimg.ErrInvalid, "json"},
		"deep":                  {list(strings.Repeat("[", 200)), kimg.ErrLimit, "depth"},
		"other case":            {list(`[{"config":"config.json"}]`), kimg.ErrInvalid, "duplicate-key"},
		"twice a key":           {list(`[{"Config":"config.json","Config":"x"}]`), kimg.ErrInvalid, "duplicate-key"},
		"several":               {list(`[{"Config":"a","RepoTags":["x:1"]},{"Config":"b","RepoTags":["y:\u0007"]},{"Config":"b"}]`), kimg.ErrInvalid, `"x:1", "y:\x07", "@2"`},
		"large list":            {list("[" + strings.Repeat(" ", 1<<20) + "]"), kimg.ErrLimit, "too-big"},
		"config above":          {list(`[{"Config":"../../etc/passwd","Layers":[]}]`), kimg.ErrUnsafe, "out of the archive"},
		"config absolute":       {list(`[{"Config":"/etc/passwd","Layers":[]}]`), kimg.ErrUnsafe, "out of the archive"},
		"no config":             {list(`[{"Config":"","Layers":[]}]`), kimg.ErrUnsafe, ""},
		"config absent":         {list(`[{"Config":"x","Layers":[]}]`), kimg.ErrNotFound, "not in the archive"},
		"layer absent":          {list(`[{"Config":"config.json","Layers":["x"]}]`), kimg.ErrNotFound, "blob-missing"},
		"layer above":           {list(`[{"Config":"config.json","Layers":["../x"]}]`), kimg.ErrUnsafe, "out of the archive"},
		"layers too many":       {list(`[{"Config":"config.json","Layers":["0/layer.tar","0/layer.tar"]}]`), kimg.ErrInvalid, "count"},
		"layers too few":        {list(`[{"Config":"config.json","Layers":[]}]`), kimg.ErrInvalid, "count"},
		"layers far too many":   {list(`[{"Config":"config.json","Layers":["x"` + strings.Repeat(`,"x"`, 500) + `]}]`), kimg.ErrLimit, "501 layers"},
		"config a link out":     {with(replace("config.json", link("", "../../../etc/passwd"))), kimg.ErrUnsafe, "out of the archive"},
		"config a link abs":     {with(replace("config.json", link("", "/etc/passwd"))), kimg.ErrUnsafe, "out of the archive"},
		"config a circle":       {with(replace("config.json", link("", "config.json"))), kimg.ErrInvalid, "links"},
		"config a hard link":    {with(replace("config.json", entry{"", "/etc/passwd", tar.TypeLink})), kimg.ErrUnsafe, "out of the archive"},
		"config a FIFO":         {with(replace("config.json", entry{"", "", tar.TypeFifo})), kimg.ErrUnsafe, "not a regular"},
		"config a device":       {with(replace("config.json", entry{"", "", tar.TypeChar})), kimg.ErrUnsafe, "not a regular"},
		"config large":          {with(content("config.json", strings.Repeat(" ", 4<<20+1))), kimg.ErrLimit, "too-big"},
		"config no json":        {with(content("config.json", "x")), kimg.ErrInvalid, "json"},
		"config no rootfs":      {with(content("config.json", "{}")), kimg.ErrInvalid, "count"},
		"diff id a path":        {with(content("config.json", `{"rootfs":{"diff_ids":["sha256:../../x"]}}`)), kimg.ErrInvalid, "digest"},
		"list a FIFO":           {with(replace("manifest.json", entry{"", "", tar.TypeFifo})), kimg.ErrUnsafe, "not a regular"},
		"digest of a config": {pack(t, file("blobs/sha256/"+id(1), string(img.Config)), file("l", layer), file("manifest.json", `[{"Config":"blobs/sha256/`+id(1)+`","Layers":["l"]}]`)),
			kimg.ErrIntegrity, "blob-digest"},
		"sizes of one layer": {pack(t, file("a", "1"), file("b", "22"), file("c", `{"rootfs":{"diff_ids":["`+testimage.Digest(nil)+`","`+testimage.Digest(nil)+`"]}}`), file("manifest.json", `[{"Config":"c","Layers":["a","b"]}]`)),
			kimg.ErrInvalid, "ambiguous"},
		"long name": {pack(t, file(strings.Repeat("n", 5000), "")), kimg.ErrLimit, "a name of more"},

		"legacy no json":        {legacy(`{"a":{"1":"`+id(9)+`"}}`, nil), kimg.ErrNotFound, "not in the archive"},
		"legacy path as id":     {legacy(`{"a":{"1":"../../etc"}}`, nil), kimg.ErrInvalid, "v1-id"},
		"legacy short id":       {legacy(`{"a":{"1":"abc"}}`, nil), kimg.ErrInvalid, "v1-id"},
		"legacy list":           {legacy(`[]`, nil), kimg.ErrInvalid, "json-type"},
		"legacy empty":          {legacy(`{}`, nil), kimg.ErrInvalid, "not-an-image"},
		"legacy several":        {legacy(`{"a":{"1":"TOP","2":"`+id(1)+`"}}`, nil), kimg.ErrInvalid, `"a:1", "a:2"`},
		"legacy duplicate":      {legacy(`{"a":{"1":"TOP","1":"`+id(1)+`"}}`, nil), kimg.ErrInvalid, "duplicate-key"},
		"legacy version":        {legacy(repos, content("VERSION", "2.0")), kimg.ErrUnsupported, "version"},
		"legacy other id":       {legacy(repos, content("/json", `{"id":"`+id(7)+`"}`)), kimg.ErrInvalid, "v1-id"},
		"legacy own parent":     {legacy(repos, content("/json", `{"id":"`+id(2)+`","parent":"`+id(2)+`"}`)), kimg.ErrInvalid, "duplicate-id"},
		"legacy parent a path":  {legacy(repos, content("/json", `{"id":"`+id(2)+`","parent":"../x"}`)), kimg.ErrInvalid, "v1-id"},
		"legacy no layer":       {legacy(repos, func(e []entry) []entry { return e[:len(e)-1] }), kimg.ErrNotFound, "blob-missing"},
		"legacy layer link out": {legacy(repos, replace("layer.tar", link("", "../../../etc/passwd"))), kimg.ErrUnsafe, "out of the archive"},
		"legacy layer circle":   {legacy(repos, replace("layer.tar", link("", "layer.tar"))), kimg.ErrInvalid, "links"},
		"legacy layer a device": {legacy(repos, replace("layer.tar", entry{"", "", tar.TypeBlock})), kimg.ErrUnsafe, "not a regular"},
		"legacy long chain":     {longChain(t, 501), kimg.ErrLimit, "more than 500"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, temp := t.TempDir(), t.TempDir()
			path := filepath.Join(dir, "x")
			must(t, os.WriteFile(path, c.data, 0o600))
			before := snapshot(t, dir)
			err := within(t, func() error {
				s, err := OpenDocker(t.Context(), path, "", Options{TempDir: temp})
				if err == nil {
					s.Close()
				}
				return err
			})
			if kimg.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.word) {
				t.Errorf("%v, want class %s, %q", err, c.class, c.word)
			}
			if line := kimg.Line(err); strings.ContainsAny(line, "\a\n") {
				t.Errorf("%q", line)
			}
			same(t, before, dir)
			same(t, nil, temp)
		})
	}
	if s, err := OpenDocker(t.Context(), save(t, longChain(t, 500)), "", Options{}); err != nil {
		t.Errorf("at the limit: %v", err)
	} else {
		s.Close()
	}
}

func TestHostileFiles(t *testing.T) {
	for _, path := range []string{"/dev/zero", "/etc", filepath.Join(t.TempDir(), "absent")} {
		err := within(t, func() error { _, err := OpenOCI(t.Context(), path, "", Options{}); return err })
		if c := kimg.ClassOf(err); c != kimg.ErrUnsafe && c != kimg.ErrNotFound {
			t.Errorf("%s: %v", path, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, data := range [][]byte{pack(t, file("x", "")), gzipped(t, pack(t, file("x", "")))} {
		if _, err := OpenDocker(ctx, save(t, data), "", Options{}); kimg.ClassOf(err) != kimg.ErrInterrupted {
			t.Errorf("cancelled: %v", err)
		}
	}
}

func TestSparseAndPax(t *testing.T) {
	testenv.Need(t, "tar")
	dir := t.TempDir()
	img := testimage.NewImage(5, testimage.ImageOptions{})
	must(t, img.WriteOCI(dir, "x"))
	blob := filepath.Join(dir, "blobs", "sha256", img.Layers[0].Digest[7:])
	f, err := os.OpenFile(blob, os.O_WRONLY, 0)
	must(t, err)
	must(t, f.Truncate(1<<20)) // a hole at the end
	must(t, f.Close())
	for _, format := range []string{"gnu", "posix"} {
		path := filepath.Join(t.TempDir(), format)
		if out, err := exec.Command("tar", "-C", dir, "--format", format, "-S", "-cf", path, ".").CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		s, err := OpenOCI(t.Context(), path, "x", Options{})
		must(t, err)
		if _, err := s.Manifest(t.Context()); err != nil {
			t.Error(err)
		}
		if _, _, err := s.Blob(t.Context(), digest.Digest(img.Layers[0].Digest)); kimg.ClassOf(err) != kimg.ErrUnsupported {
			t.Errorf("%s: a sparse blob: %v", format, err)
		}
		must(t, s.Close())
	}
}

func longChain(t testing.TB, n int) []byte {
	e, ids := legacyEntries(slices.Repeat([]string{"x"}, n)...)
	return pack(t, append(e, file("repositories", `{"a":{"1":"`+ids[n-1]+`"}}`))...)
}

func gzipped(t testing.TB, data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(data)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// checksum sets the checksum of a header block.
func checksum(h []byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h[:512] {
		sum += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

func within(t *testing.T, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("blocks")
		return nil
	}
}

func snapshot(t *testing.T, dir string) []testimage.Item {
	t.Helper()
	items, err := testimage.Snapshot(dir)
	must(t, err)
	return items
}

func same(t *testing.T, before []testimage.Item, dir string) {
	t.Helper()
	if diff := testimage.Diff(before, snapshot(t, dir)); diff != nil {
		t.Errorf("changed:\n%s", strings.Join(diff, "\n"))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestBombStopsBeforeTheDiskIsFull unpacks into a temporary directory of 4 MiB what has 64 MiB.
func TestBombStopsBeforeTheDiskIsFull(t *testing.T) {
	testenv.Root(t)
	temp := t.TempDir()
	must(t, syscall.Mount("tmpfs", temp, "tmpfs", 0, "size=4m"))
	defer syscall.Unmount(temp, syscall.MNT_DETACH)
	path := save(t, gzipped(t, pack(t, file("x", strings.Repeat("\x00", 64<<20)))))
	if _, err := OpenDocker(t.Context(), path, "", Options{TempDir: temp}); !errors.Is(err, kimg.ErrNoSpace) || !strings.Contains(err.Error(), "too-big") {
		t.Errorf("%v", err)
	}
	var fs syscall.Statfs_t
	must(t, syscall.Statfs(temp, &fs))
	if fs.Bfree != fs.Blocks {
		t.Errorf("%d of %d blocks are taken", fs.Blocks-fs.Bfree, fs.Blocks)
	}
}

// TestIndexIsBounded announces more names than are kept.
func TestIndexIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	f, err := os.Create(path)
	must(t, err)
	out := bufio.NewWriterSize(f, 1<<20)
	w := tar.NewWriter(out)
	for i := range 34000 {
		must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("n", 4000) + strconv.Itoa(i), Format: tar.FormatGNU}))
	}
	must(t, errors.Join(w.Close(), out.Flush(), f.Close()))
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := OpenDocker(t.Context(), path, "", Options{}); !errors.Is(err, kimg.ErrLimit) || !strings.Contains(err.Error(), "names of the members") {
		t.Errorf("%v", err)
	}
	if runtime.ReadMemStats(&after); after.HeapSys > before.HeapSys+256<<20 {
		t.Errorf("the heap grew by %d MiB", (after.HeapSys-before.HeapSys)>>20)
	}
}
