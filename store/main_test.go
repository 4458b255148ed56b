package store_test

import (
	"archive/tar"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containers/storage/pkg/mount"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/storetest"
	"github.com/kimg/kimg/tests/asroot"
)

func TestMain(m *testing.M) {
	asroot.Enter()
	if op := os.Getenv(envChild); op != "" {
		child(op)
		return
	}
	os.Exit(asroot.Run(suite{m}))
}

type suite struct{ *testing.M }

func (s suite) Run() int {
	defer func() { os.RemoveAll(failpointDir) }() // does nothing to ""
	return s.M.Run()
}

// testStore is a store of its own in a temporary directory.
type testStore struct {
	*store.Store
	root, runRoot string
	driver        string // "": overlay
}

// newStore opens an empty overlay store and cleans up what is mounted in it when the test ends.
func newStore(t testing.TB, options ...string) *testStore { return newStoreOf(t, "", options...) }

// newStoreOf does so with another driver.
func newStoreOf(t testing.TB, driver string, options ...string) *testStore {
	t.Helper()
	dir := fastTemp(t)
	ts := &testStore{driver: driver, root: filepath.Join(dir, "root"), runRoot: filepath.Join(dir, "run")}
	t.Cleanup(func() { unmountAll(t, dir) })
	ts.Store = ts.open(t, options...)
	return ts
}

// fastTemp makes a temporary directory in memory where the machine has one: the library syncs every record it writes. By
// its name the mounts left in it are found.
func fastTemp(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", filepath.Base(os.TempDir())+"-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// open opens the same store once more.
func (ts *testStore) open(t testing.TB, options ...string) *store.Store {
	t.Helper()
	if options == nil {
		options = []string{}
	}
	s, err := store.Open(store.Options{Root: ts.root, RunRoot: ts.runRoot, Driver: cmp.Or(ts.driver, "overlay"), DriverOptions: options, NoSync: true, Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimRight(p, "\n"))
	return len(p), nil
}

func unmountAll(t testing.TB, dir string) {
	infos, err := mount.GetMounts()
	if err != nil {
		t.Error(err)
	}
	for i := len(infos) - 1; i >= 0; i-- {
		if rel, err := filepath.Rel(dir, infos[i].Mountpoint); err == nil && filepath.IsLocal(rel) {
			if err := mount.Unmount(infos[i].Mountpoint); err != nil {
				t.Error(err)
			}
		}
	}
}

// file is one member of a test tar.
type file struct {
	name, content, link string
	kind                byte
	mode                int64
	uid                 int
	nanos               int64 // of its time
	pax                 map[string]string
}

func makeTar(t testing.TB, files ...file) []byte {
	if t == nil {
		t = childTB{}
	}
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Typeflag: f.kind, Linkname: f.link, Mode: f.mode, Uid: f.uid, Gid: f.uid, Size: int64(len(f.content)), PAXRecords: f.pax, ModTime: time.Unix(1700000000, f.nanos)}
		if f.nanos != 0 {
			h.Format = tar.FormatPAX
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// record makes an OCI image record over layers; seed makes its configuration unlike any other.
func record(t testing.TB, seed, top string, names []string, diffIDs ...digest.Digest) store.ImageRecord {
	if t == nil {
		t = childTB{}
	}
	t.Helper()
	created := time.Unix(1700000000, 0).UTC()
	config, err := json.Marshal(ispec.Image{
		Created: &created, Author: seed, Platform: ispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS: ispec.RootFS{Type: "layers", DiffIDs: diffIDs},
	})
	if err != nil {
		t.Fatal(err)
	}
	m := ispec.Manifest{MediaType: ispec.MediaTypeImageManifest, Config: ispec.Descriptor{MediaType: ispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}}
	m.SchemaVersion = 2
	for _, d := range diffIDs {
		m.Layers = append(m.Layers, ispec.Descriptor{MediaType: ispec.MediaTypeImageLayer, Digest: d, Size: 1})
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return store.ImageRecord{Config: config, Manifest: manifest, ManifestType: m.MediaType, TopLayer: top, Names: names, Created: created}
}

// addImage makes an image of one layer that holds the file /FILE.
func (ts *testStore) addImage(t testing.TB, file_, name string) *store.Image {
	t.Helper()
	data := makeTar(t, file{name: file_, content: "content of " + file_})
	l, err := ts.AddLayer(t.Context(), "", store.TarSource(bytes.NewReader(data)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	if name != "" {
		names = []string{name}
	}
	img, err := ts.PutImage(t.Context(), record(t, file_, l.ID, names, l.UncompressedDigest))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// inventory is everything a failed change must leave as it was.
func (ts *testStore) inventory(t testing.TB) string {
	t.Helper()
	return storetest.Inventory(t, ts.Store)
}

func sortLines(text string) string {
	lines := strings.SplitAfter(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// diff shows the lines two sorted texts do not share.
func diff(want, got string) string {
	var b strings.Builder
	w, g := strings.SplitAfter(want, "\n"), strings.SplitAfter(got, "\n")
	for _, l := range w {
		if !slices.Contains(g, l) {
			b.WriteString("- " + l)
		}
	}
	for _, l := range g {
		if !slices.Contains(w, l) {
			b.WriteString("+ " + l)
		}
	}
	return b.String()
}

// childTB stands for the test in a child process.
type childTB struct{ testing.TB }

func (childTB) Helper()           {}
func (childTB) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func mountTmpfs(dir, options string) error {
	return mount.Mount("tmpfs", dir, "tmpfs", options)
}

// rerun runs one test in a process of its own with more environment.
func rerun(t *testing.T, name string, env ...string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$", "-test.v")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+name)) {
		t.Errorf("%v:\n%s", err, out)
	}
}
