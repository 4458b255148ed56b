package transfer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/layout"
	"github.com/kimg/kimg/store/transfer"
	"github.com/kimg/kimg/tests/asroot"
)

// envChild makes this test binary pull a layout into a store: the directory that has the store, and the layout, on two lines. With
// envBreak nobody can take the store's lock any more when the first layer is opened.
const (
	envChild = "KIMG_TRANSFER_CHILD"
	envBreak = "KIMG_TRANSFER_BREAK"
)

func TestMain(m *testing.M) {
	asroot.Enter()
	if where := os.Getenv(envChild); where != "" {
		if err := child(strings.Cut(where, "\n")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(asroot.Run(m))
}

func child(at, dir string, _ bool) error {
	st, err := store.Open(store.Options{Root: at + "/root", RunRoot: at + "/run", Driver: "overlay", DriverOptions: []string{}, NoSync: true})
	if err != nil {
		return err
	}
	defer st.Close()
	src, err := layout.OpenOCI(dir, "a")
	if err != nil {
		return err
	}
	defer src.Close()
	_, err = transfer.Pull(context.Background(), st, breaking{src, at + "/root/storage.lock"}, transfer.PullOptions{Names: []string{"same"}, Options: transfer.Options{Jobs: 3}})
	return err
}

// breaking puts something else in the place of a lock file, when that is wanted.
type breaking struct {
	transfer.Source
	lock string
}

func (b breaking) Blob(ctx context.Context, d digest.Digest) (io.ReadCloser, int64, error) {
	r, size, err := b.Source.Blob(ctx, d)
	if os.Getenv(envBreak) != "" && size > 4096 { // no configuration
		_ = os.Remove(b.lock)
		_ = os.Mkdir(b.lock, 0o700)
	}
	return r, size, err
}

// TestPanicIsNotWaitedFor: the library panics where it cannot take a lock, on a disk that became read-only. Whatever waits for its locks
// then waits for ever; the pull ends.
func TestPanicIsNotWaitedFor(t *testing.T) {
	img := testimage.NewImage(23, testimage.ImageOptions{Layers: 5, Change: func(c map[string]any) { c["architecture"] = runtime.GOARCH }})
	dir := t.TempDir()
	must(t, img.WriteOCI(dir, "a"))
	st := newStore(t, "overlay")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), envChild+"="+st.root+"\n"+dir, envBreak+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil || ctx.Err() != nil || !strings.Contains(string(out), "is a directory") {
		t.Errorf("%v: %s", err, out)
	}
	must(t, os.Remove(st.root+"/root/storage.lock"))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testStore is an empty store of its own, in memory where the machine has room there.
type testStore struct {
	*store.Store
	root string
	logs *bytes.Buffer
}

func newStore(t testing.TB, driver string, options ...string) testStore {
	dir, err := os.MkdirTemp("/dev/shm", "kimg-transfer-")
	if err != nil {
		dir = t.TempDir()
	}
	s := testStore{root: dir, logs: &bytes.Buffer{}}
	s.Store, err = store.Open(store.Options{
		Root: dir + "/root", RunRoot: dir + "/run", Driver: driver, DriverOptions: append([]string{}, options...), NoSync: true,
		Logger: slog.New(slog.NewTextHandler(&locked{w: s.logs}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	must(t, err)
	t.Cleanup(func() {
		if _, err := s.Storage().Shutdown(true); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// inventory is everything a failed pull must leave as it was.
func (s testStore) inventory(t testing.TB) string {
	t.Helper()
	var out []string
	images, err := s.Storage().Images()
	must(t, err)
	for _, i := range images {
		out = append(out, fmt.Sprint("image ", i.ID, i.Names, i.TopLayer))
	}
	layers, err := s.Storage().Layers()
	must(t, err)
	for _, l := range layers {
		out = append(out, fmt.Sprint("layer ", l.ID, " ", l.Parent))
	}
	for _, dir := range []string{"overlay", "overlay/l", "overlay/staging", "overlay-layers", "overlay-images", "kimg"} {
		names, err := filepath.Glob(filepath.Join(s.root, "root", dir, "*"))
		must(t, err)
		for _, n := range names {
			if b := filepath.Base(n); !strings.HasSuffix(b, ".lock") && !slices.Contains([]string{"tempdirs", "staging"}, b) {
				out = append(out, n)
			}
		}
	}
	return strings.Join(out, "\n")
}

// memory is a source of blobs and manifests, which counts what is asked of it.
type memory struct {
	mu       sync.Mutex
	manifest []byte
	blobs    map[digest.Digest][]byte
	fetched  []digest.Digest
	open     int
	most     int // open at the same time
	opened   func(d digest.Digest)
	wrap     func(digest.Digest, io.Reader) io.Reader
}

func source(images ...testimage.Image) *memory {
	m := &memory{blobs: map[digest.Digest][]byte{}, manifest: images[0].Manifest}
	for _, img := range images {
		m.blobs[digest.FromBytes(img.Config)], m.blobs[digest.FromBytes(img.Manifest)] = img.Config, img.Manifest
		for _, l := range img.Layers {
			m.blobs[digest.Digest(l.Digest)] = l.Blob
		}
	}
	return m
}

func (m *memory) Manifest(context.Context) ([]byte, error) { return m.manifest, nil }

func (m *memory) ManifestByDigest(_ context.Context, d digest.Digest) ([]byte, error) {
	return m.blobs[d], nil
}

func (m *memory) Blob(_ context.Context, d digest.Digest) (io.ReadCloser, int64, error) {
	m.mu.Lock()
	data, ok := m.blobs[d]
	m.fetched = append(m.fetched, d)
	m.open++
	m.most = max(m.most, m.open)
	opened := m.opened
	m.mu.Unlock()
	if opened != nil {
		opened(d)
	}
	if !ok {
		return nil, 0, kimg.Errorf(kimg.ErrNotFound, d.String(), "blob-missing")
	}
	var r io.Reader = bytes.NewReader(data)
	if m.wrap != nil {
		r = m.wrap(d, r)
	}
	return &closing{r, m}, int64(len(data)), nil
}

type closing struct {
	io.Reader
	m *memory
}

func (c *closing) Close() error {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.m.open--
	return nil
}

func here() ispec.Platform { return ispec.Platform{OS: "linux", Architecture: "amd64"} }

func pull(t testing.TB, st testStore, src transfer.Source, o transfer.PullOptions) (transfer.Result, error) {
	t.Helper()
	if o.Platform == nil {
		p := here()
		o.Platform = &p
	}
	return transfer.Pull(t.Context(), st.Store, src, o)
}

// B16, B17, U3, U14, U18, U20, U21, U22, U24, U26, U27, X19: images of both families come in, with their digests and IDs, and a second
// time nothing is fetched.
func TestPull(t *testing.T) {
	for _, driver := range []string{"overlay", "vfs"} {
		st := newStore(t, driver)
		for name, o := range map[string]testimage.ImageOptions{
			"oci": {Layers: 4}, "oci gzip": {Layers: 3, Gzip: true}, "docker": {Layers: 3, Docker: true, Gzip: true},
			"an empty blob": {Layers: 2, Tars: [][]byte{{}, testimage.PackTar()}}, "an empty blob gzip": {Layers: 2, Tars: [][]byte{testimage.PackTar(), {}}, Gzip: true},
		} {
			t.Run(driver+" "+name, func(t *testing.T) {
				img := testimage.NewImage(uint64(len(name)), o)
				src := source(img)
				var debug bytes.Buffer
				log := slog.New(slog.NewTextHandler(&locked{w: &debug}, &slog.HandlerOptions{Level: slog.LevelDebug}))
				r, err := pull(t, st, src, transfer.PullOptions{Names: []string{"a", "b:1"}, Options: transfer.Options{Logger: log}})
				must(t, err)
				if r.Digest != digest.FromBytes(img.Manifest) || r.Image.ID != digest.FromBytes(img.Config).Encoded() || r.Unpacked != o.Layers || r.Skipped != 0 {
					t.Errorf("%+v", r)
				}
				if src.fetched[0] != digest.FromBytes(img.Config) {
					t.Errorf("the configuration was not first: %v", src.fetched)
				}
				if n := strings.Count(debug.String(), "layer unpacked"); n != o.Layers {
					t.Errorf("%d lines about layers:\n%s", n, debug.String())
				}
				if !slices.Equal(r.Image.Names, []string{"localhost/a:latest", "localhost/b:1"}) {
					t.Error(r.Image.Names)
				}
				infos, err := r.Image.Layers(t.Context())
				must(t, err)
				for i, l := range infos {
					if l.DiffID.String() != img.Layers[i].DiffID {
						t.Errorf("layer %d is %s", i, l.DiffID)
					}
					var out bytes.Buffer
					must(t, st.ExportLayer(t.Context(), l.ID, &out))
					if !bytes.Equal(out.Bytes(), img.Layers[i].Tar) {
						t.Errorf("layer %d comes back otherwise", i)
					}
				}
				if data, _, err := r.Image.Manifest(t.Context()); err != nil || !bytes.Equal(data, img.Manifest) {
					t.Errorf("the manifest: %v", err)
				}
				src.fetched = nil
				again, err := pull(t, st, src, transfer.PullOptions{Names: []string{"c"}})
				if err != nil || again.Skipped != o.Layers || again.Unpacked != 0 || len(src.fetched) != 1 {
					t.Errorf("again: %+v, %v; fetched %v", again, err, src.fetched)
				}
			})
		}
	}
}

// U27: an image of schema 1 becomes one of schema 2.
func TestPullSchema1(t *testing.T) {
	dir := t.TempDir()
	must(t, testimage.NewV1(testimage.V1Options{Seed: 5, Layers: 4, Empty: 1, Signed: true, Compression: []string{"gzip", "plain", "xz", "bzip2"}}).WriteDir(dir))
	src, err := layout.OpenDir(dir)
	must(t, err)
	defer src.Close()
	st := newStore(t, "overlay")
	r, err := pull(t, st, src, transfer.PullOptions{Names: []string{"old"}})
	must(t, err)
	config, err := r.Image.Config(t.Context())
	must(t, err)
	infos, err := r.Image.Layers(t.Context())
	if err != nil || len(infos) != 4 || !strings.Contains(string(config), infos[1].DiffID.String()) {
		t.Errorf("%+v %v\n%s", infos, err, config)
	}
}

// U6, U8, U9, U13: only what is missing is fetched, from the first missing layer on; what a layer is called stays with it.
func TestFirstMissingLayer(t *testing.T) {
	base := testimage.NewImage(1, testimage.ImageOptions{Layers: 2, Gzip: true})
	tars := [][]byte{base.Layers[0].Tar, base.Layers[1].Tar, testimage.NewImage(2, testimage.ImageOptions{}).Layers[0].Tar, base.Layers[0].Tar}
	top := testimage.NewImage(3, testimage.ImageOptions{Tars: tars, Gzip: true})
	top.Manifest = bytes.Replace(top.Manifest, []byte(`{"digest":"`+top.Layers[2].Digest+`"`),
		[]byte(`{"annotations":{"containerd.io/snapshot/x":"kept","other":"not"},"digest":"`+top.Layers[2].Digest+`"`), 1)
	st := newStore(t, "overlay")
	_, err := pull(t, st, source(base), transfer.PullOptions{Names: []string{"base"}})
	must(t, err)
	src := source(top)
	var events []transfer.Event
	r, err := pull(t, st, src, transfer.PullOptions{Names: []string{"top"}, Options: transfer.Options{Progress: func(e transfer.Event) { events = append(events, e) }}})
	if err != nil || r.Skipped != 2 || r.Unpacked != 2 || len(src.fetched) != 3 {
		t.Fatalf("%+v, %v, fetched %v", r, err, src.fetched)
	}
	l, err := st.Storage().Layer(r.Layers[2].ID)
	must(t, err)
	if fmt.Sprint(l.Flags["containerd.io/snapshot/x"]) != "kept" || l.Flags["other"] != nil || len(fmt.Sprint(l.Flags["containerd.io/snapshot.ref"])) != 71 {
		t.Errorf("flags %v", l.Flags)
	}
	checkEvents(t, events, top)
}

// U25, X22: every layer is told about, from its beginning to its end.
func checkEvents(t *testing.T, events []transfer.Event, img testimage.Image) {
	t.Helper()
	for i, l := range img.Layers {
		var of []transfer.Event
		for _, e := range events {
			if e.Layer == i {
				of = append(of, e)
			}
		}
		if len(of) == 0 {
			t.Errorf("layer %d: nothing is told", i)
			continue
		}
		last := of[len(of)-1]
		if last.End.IsZero() || last.Err != nil || last.Digest.String() != l.Digest || last.Skipped != (i < 2) || !last.Skipped && last.Bytes != int64(len(l.Blob)) {
			t.Errorf("layer %d ends with %+v", i, last)
		}
	}
}

// U4: the number of layers is checked before anything is fetched or written; so are the documents themselves.
func TestDocumentsFirst(t *testing.T) {
	st := newStore(t, "overlay")
	before := st.inventory(t)
	ids := func(change func([]any) []any) func(map[string]any) {
		return func(config map[string]any) {
			all := []any{}
			for _, id := range config["rootfs"].(map[string]any)["diff_ids"].([]string) {
				all = append(all, id)
			}
			config["rootfs"] = map[string]any{"type": "layers", "diff_ids": change(all)}
			delete(config, "history")
		}
	}
	for name, change := range map[string]func([]any) []any{
		"fewer": func(all []any) []any { return all[:1] },
		"more":  func(all []any) []any { return append(all, all[0]) },
	} {
		src := source(testimage.NewImage(4, testimage.ImageOptions{Layers: 2, Change: ids(change)}))
		if _, err := pull(t, st, src, transfer.PullOptions{}); !errors.Is(err, kimg.ErrInvalid) || len(src.fetched) != 1 {
			t.Errorf("%s: %v, fetched %v", name, err, src.fetched)
		}
	}
	many := testimage.NewImage(5, testimage.ImageOptions{Tars: slices.Repeat([][]byte{testimage.PackTar()}, 501)})
	src := source(many)
	if _, err := pull(t, st, src, transfer.PullOptions{}); !errors.Is(err, kimg.ErrLimit) || len(src.fetched) > 1 {
		t.Errorf("501 layers: %v, fetched %d", err, len(src.fetched))
	}
	src = source(testimage.NewImage(6, testimage.ImageOptions{}))
	if _, err := pull(t, st, src, transfer.PullOptions{Names: []string{"Not A Name"}}); !errors.Is(err, kimg.ErrInvalid) || len(src.fetched) > 0 {
		t.Errorf("a name: %v", err)
	}
	if after := st.inventory(t); after != before {
		t.Errorf("was %s\nis %s", before, after)
	}
}

// B13, U5, X18: the image for the platform is taken, another one is refused before its layers are fetched, and a configuration that
// contradicts the index is a warning.
func TestPlatforms(t *testing.T) {
	arm := testimage.NewImage(7, testimage.ImageOptions{Gzip: true, Change: func(c map[string]any) { c["architecture"], c["variant"] = "arm", "v7" }})
	amd := testimage.NewImage(8, testimage.ImageOptions{})
	attestation := testimage.NewImage(9, testimage.ImageOptions{})
	entry := func(img testimage.Image, platform string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":%s}`, img.ManifestType, testimage.Digest(img.Manifest), len(img.Manifest), platform)
	}
	src := source(amd, arm, attestation)
	src.manifest = []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` +
		entry(attestation, `{"os":"unknown","architecture":"unknown"}`) + "," + entry(arm, `{"os":"linux","architecture":"arm","variant":"v7"}`) + "," +
		entry(amd, `{"os":"linux","architecture":"amd64"}`) + "," + entry(amd, `{"os":"linux","architecture":"s390x"}`) + `]}`)
	st := newStore(t, "overlay")
	for _, c := range []struct{ platform, want string }{
		{"linux/amd64", testimage.Digest(amd.Manifest)}, {"linux/arm/v7", testimage.Digest(arm.Manifest)}, {"linux/arm/v8", testimage.Digest(arm.Manifest)},
		{"linux/arm/v6", ""}, {"windows/amd64", ""}, {"linux/s390x", testimage.Digest(amd.Manifest)},
	} {
		p := strings.Split(c.platform+"/", "/")
		var logs bytes.Buffer
		src.fetched = nil
		r, err := pull(t, st, src, transfer.PullOptions{Platform: &ispec.Platform{OS: p[0], Architecture: p[1], Variant: p[2]}, Options: transfer.Options{Logger: slog.New(slog.NewTextHandler(&logs, nil))}})
		if r.Digest.String() != c.want || c.want == "" && (!errors.Is(err, kimg.ErrUnsupported) || len(src.fetched) > 0) {
			t.Errorf("%s: %s, %v", c.platform, r.Digest, err)
		}
		if warned := strings.Contains(logs.String(), "not what its index says"); warned != (p[1] == "s390x") {
			t.Errorf("%s: %s", c.platform, logs.String())
		}
	}
	bare := source(amd, arm)
	for want, img := range map[string]testimage.Image{"": arm, testimage.Digest(amd.Manifest): amd} { // of one without a platform the configuration decides
		bare.manifest = []byte(`{"schemaVersion":2,"manifests":[` + strings.Replace(entry(img, ""), `,"platform":`, "", 1) + `]}`)
		r, err := pull(t, st, bare, transfer.PullOptions{Platform: &ispec.Platform{OS: "linux", Architecture: "amd64"}})
		if r.Digest.String() != want || want == "" && !errors.Is(err, kimg.ErrUnsupported) {
			t.Errorf("without a platform: %s, %v", r.Digest, err)
		}
	}
	alone := source(arm)
	if _, err := pull(t, st, alone, transfer.PullOptions{}); !errors.Is(err, kimg.ErrUnsupported) || len(alone.fetched) != 1 {
		t.Errorf("for another platform: %v", err)
	}
	if _, err := pull(t, st, alone, transfer.PullOptions{AnyPlatform: true}); err != nil {
		t.Error(err)
	}
}

// U16: a foreign layer is fetched from where its descriptor is, or was; never from its URLs.
func TestForeignLayers(t *testing.T) {
	img := testimage.NewImage(10, testimage.ImageOptions{Layers: 2, Gzip: true})
	img.Manifest = bytes.Replace(img.Manifest, []byte("layer.v1.tar+gzip"), []byte("layer.nondistributable.v1.tar+gzip"), 1)
	st := newStore(t, "overlay")
	before := st.inventory(t)
	src := source(img)
	missing := digest.Digest(img.Layers[0].Digest)
	delete(src.blobs, missing)
	if _, err := pull(t, st, src, transfer.PullOptions{}); !errors.Is(err, kimg.ErrUnsupported) {
		t.Error(err)
	}
	src.fetched = nil
	if _, err := pull(t, st, src, transfer.PullOptions{NoForeign: true}); !errors.Is(err, kimg.ErrUnsupported) || len(src.fetched) != 1 {
		t.Error(err, src.fetched)
	}
	if after := st.inventory(t); after != before {
		t.Errorf("was %s\nis %s", before, after)
	}
	src.blobs[missing] = img.Layers[0].Blob
	if _, err := pull(t, st, src, transfer.PullOptions{}); err != nil {
		t.Error(err)
	}
}

// U12, U17, U18 and P4: every blob of a good image, each way of being wrong: class integrity, and the store is as it was.
func TestDamage(t *testing.T) {
	st := newStore(t, "overlay")
	kept := testimage.NewImage(99, testimage.ImageOptions{})
	_, err := pull(t, st, source(kept), transfer.PullOptions{Names: []string{"kept"}})
	must(t, err)
	before := st.inventory(t)
	for _, zipped := range []bool{false, true} {
		img := testimage.NewImage(11, testimage.ImageOptions{Layers: 3, Gzip: zipped})
		for i, d := range append([]string{testimage.Digest(img.Config)}, img.Layers[0].Digest, img.Layers[1].Digest, img.Layers[2].Digest) {
			for name, damage := range map[string]func([]byte) []byte{
				"flip":   func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
				"first":  func(b []byte) []byte { b[0] ^= 1; return b },
				"cut":    func(b []byte) []byte { return b[:len(b)-1] },
				"empty":  func([]byte) []byte { return nil },
				"extend": func(b []byte) []byte { return append(b, 0) },
				"swap":   func([]byte) []byte { return kept.Layers[0].Blob },
				"resize": nil,
			} {
				src := source(img)
				if damage != nil {
					src.blobs[digest.Digest(d)] = damage(bytes.Clone(src.blobs[digest.Digest(d)]))
				} else {
					size := len(src.blobs[digest.Digest(d)])
					src.manifest = bytes.Replace(img.Manifest, fmt.Appendf(nil, `"size":%d`, size), fmt.Appendf(nil, `"size":%d`, size+1), 1)
				}
				if _, err := pull(t, st, src, transfer.PullOptions{Names: []string{"new"}}); !errors.Is(err, kimg.ErrIntegrity) {
					t.Errorf("%s of blob %d: %v", name, i, err)
				}
				if src.open != 0 {
					t.Errorf("%s of blob %d: %d blobs are open", name, i, src.open)
				}
				if after := st.inventory(t); after != before {
					t.Fatalf("%s of blob %d: was %s\nis %s", name, i, before, after)
				}
			}
		}
		// Blobs are right, the configuration means others.
		wrong := testimage.NewImage(11, testimage.ImageOptions{Layers: 3, Gzip: zipped, Change: func(c map[string]any) {
			slices.Reverse(c["rootfs"].(map[string]any)["diff_ids"].([]string))
		}})
		if _, err := pull(t, st, source(wrong), transfer.PullOptions{}); !errors.Is(err, kimg.ErrIntegrity) {
			t.Errorf("diff IDs: %v", err)
		}
		if after := st.inventory(t); after != before {
			t.Fatalf("diff IDs: was %s\nis %s", before, after)
		}
	}
}

// U15, U17: as many blobs are open as there are jobs, and cancelling ends them all.
func TestJobsAndCancel(t *testing.T) {
	img := testimage.NewImage(12, testimage.ImageOptions{Layers: 8})
	st := newStore(t, "overlay")
	before := st.inventory(t)
	src := source(img)
	ctx, cancel := context.WithCancel(t.Context())
	reached := make(chan struct{}, 8)
	config := digest.FromBytes(img.Config)
	src.opened = func(d digest.Digest) {
		if d == config {
			return
		}
		reached <- struct{}{}
		<-ctx.Done()
	}
	go func() {
		for range 3 {
			<-reached
		}
		time.Sleep(20 * time.Millisecond)
		cancel()
	}()
	p := here()
	_, err := transfer.Pull(ctx, st.Store, src, transfer.PullOptions{Platform: &p, Options: transfer.Options{Jobs: 3}})
	if kimg.ClassOf(err) != kimg.ErrInterrupted || src.most != 3 || src.open != 0 {
		t.Errorf("%v, %d at once, %d still open", err, src.most, src.open)
	}
	if after := st.inventory(t); after != before {
		t.Errorf("was %s\nis %s", before, after)
	}
}

// U14: layers are fetched and unpacked side by side, whichever comes first, and recorded base first.
func TestTopLayerFirst(t *testing.T) {
	img := testimage.NewImage(21, testimage.ImageOptions{Layers: 3, Gzip: true})
	st, src := newStore(t, "overlay"), source(img)
	unpacked := make(chan struct{}, 3) // Progress must not wait for a layer: the others wait for Progress, even to begin
	src.opened = func(d digest.Digest) {
		if d.String() == img.Layers[0].Digest { // not before the others are done
			<-unpacked
			<-unpacked
		}
	}
	var order []int
	r, err := pull(t, st, src, transfer.PullOptions{Options: transfer.Options{Jobs: 3, Progress: func(e transfer.Event) {
		if e.End.IsZero() {
			return
		}
		if order = append(order, e.Layer); e.Layer != 0 {
			unpacked <- struct{}{}
		}
	}}})
	must(t, err)
	if len(order) != 3 || order[2] != 0 || r.Layers[0].Parent != "" || r.Layers[1].Parent != r.Layers[0].ID || r.Layers[2].Parent != r.Layers[1].ID {
		t.Errorf("in the order %v: %+v", order, r.Layers)
	}
	for _, l := range r.Layers {
		must(t, st.ExportLayer(t.Context(), l.ID, io.Discard))
	}
}

// U17: what is wrong with one layer ends the fetching of the others, however slow they are.
func TestFailureEndsTheOthers(t *testing.T) {
	img := testimage.NewImage(22, testimage.ImageOptions{Layers: 3})
	st, src := newStore(t, "overlay"), source(img)
	before := st.inventory(t)
	bad := digest.Digest(img.Layers[1].Digest)
	src.blobs[bad] = bytes.Repeat([]byte("x"), len(src.blobs[bad]))
	var ended atomic.Int32
	src.wrap = func(d digest.Digest, r io.Reader) io.Reader {
		if slices.ContainsFunc(img.Layers, func(l testimage.ImageLayer) bool { return l.Digest == d.String() }) && d != bad {
			return slow{r, &ended}
		}
		return r
	}
	if _, err := pull(t, st, src, transfer.PullOptions{Options: transfer.Options{Jobs: 3}}); !errors.Is(err, kimg.ErrIntegrity) || src.open != 0 || ended.Load() != 0 {
		t.Errorf("%v, %d still open, %d read to their end", err, src.open, ended.Load())
	}
	if after := st.inventory(t); after != before {
		t.Errorf("was %s\nis %s", before, after)
	}
}

// slow needs minutes for a layer.
type slow struct {
	io.Reader
	ended *atomic.Int32 // how many were read to their end
}

func (s slow) Read(p []byte) (int, error) {
	time.Sleep(20 * time.Millisecond)
	n, err := s.Reader.Read(p[:1])
	if err == io.EOF {
		s.ended.Add(1)
	}
	return n, err
}

// U10: layers that were to be used again and are gone when they are needed are fetched.
func TestVanishedLayer(t *testing.T) {
	base := testimage.NewImage(13, testimage.ImageOptions{Layers: 2})
	top := testimage.NewImage(14, testimage.ImageOptions{Tars: [][]byte{base.Layers[0].Tar, base.Layers[1].Tar, testimage.PackTar()}})
	st := newStore(t, "overlay")
	_, err := pull(t, st, source(base), transfer.PullOptions{Names: []string{"base"}})
	must(t, err)
	src := source(top)
	var once sync.Once
	src.opened = func(d digest.Digest) {
		if d.String() == top.Layers[2].Digest {
			once.Do(func() {
				if _, err := st.DeleteImage(context.Background(), "base", false); err != nil {
					t.Error(err)
				}
			})
		}
	}
	r, err := pull(t, st, src, transfer.PullOptions{Names: []string{"top"}})
	if err != nil || r.Unpacked != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, l := range r.Layers {
		must(t, st.ExportLayer(t.Context(), l.ID, io.Discard))
	}
}

// U6: a layer that nobody uses counts when it is right, and is made anew when it is not.
func TestLayerNobodyUses(t *testing.T) {
	img := testimage.NewImage(15, testimage.ImageOptions{Layers: 2})
	for _, bad := range []bool{false, true} {
		st := newStore(t, "overlay")
		l, err := st.AddLayer(t.Context(), "", store.TarSource(bytes.NewReader(img.Layers[0].Tar)))
		must(t, err)
		if bad {
			must(t, os.WriteFile(filepath.Join(st.root, "root/overlay", l.ID, "diff/bin/file0"), []byte("#!/bin/xx\n"), 0o755))
		}
		r, err := pull(t, st, source(img), transfer.PullOptions{})
		if err != nil || (r.Skipped == 1) == bad {
			t.Fatalf("%+v, %v", r, err)
		}
		for _, l := range r.Layers {
			must(t, st.ExportLayer(t.Context(), l.ID, io.Discard))
		}
	}
}

// U6: a layer that was pulled in parts is found by the digest of its table of contents.
func TestTOC(t *testing.T) {
	img := testimage.NewImage(16, testimage.ImageOptions{Layers: 2})
	toc := digest.FromString("toc")
	img.Manifest = bytes.Replace(img.Manifest, []byte(`{"digest":"`+img.Layers[0].Digest+`"`),
		[]byte(`{"annotations":{"io.github.containers.zstd-chunked.manifest-checksum":"`+toc.String()+`"},"digest":"`+img.Layers[0].Digest+`"`), 1)
	st := newStore(t, "overlay")
	id := digest.FromString("+@TOC=" + toc.Encoded()).Encoded()
	_, _, err := st.Storage().PutLayer(id, "", nil, "", false, &storage.LayerOptions{}, bytes.NewReader(img.Layers[0].Tar))
	must(t, err)
	r, err := pull(t, st, source(img), transfer.PullOptions{})
	if err != nil || r.Skipped != 1 || r.Layers[0].ID != id || r.Layers[1].Parent != id {
		t.Errorf("%+v, %v", r, err)
	}
}

// KeepBlobs: compressed layers can leave as they came, also those that were there before; then nothing is fetched for it again. A recipe
// gives the same bytes.
func TestKeepBlobs(t *testing.T) {
	img := testimage.NewImage(22, testimage.ImageOptions{Layers: 3, Gzip: true})
	for _, recipes := range []bool{false, true} {
		st := newStore(t, "overlay")
		for _, keep := range []bool{false, true, true} {
			src := source(img)
			r, err := pull(t, st, src, transfer.PullOptions{Names: []string{"a"}, Options: transfer.Options{KeepBlobs: keep, Recipes: recipes}})
			must(t, err)
			for i, l := range img.Layers {
				d := digest.Digest(l.Digest)
				if kept, err := r.Image.Keeps(t.Context(), d); err != nil || kept != keep {
					t.Errorf("%s: %v %v", l.Digest, kept, err)
				}
				if !keep {
					continue
				}
				blob, err := r.Image.Blob(t.Context(), d, int64(len(l.Blob)))
				must(t, err)
				if data, err := io.ReadAll(blob); err != nil || !bytes.Equal(data, l.Blob) {
					t.Errorf("%s: %d bytes, %v", d, len(data), err)
				}
				must(t, blob.Close())
				kind := map[bool]string{false: "kimg.blob", true: "kimg.recipe"}[recipes]
				if names, _ := filepath.Glob(filepath.Join(st.root, "root", "overlay-layers", r.Layers[i].ID, kind+".*")); len(names) != 1 {
					t.Errorf("recipes %v: %v", recipes, names)
				}
			}
			if keep && len(src.fetched) != 4 && len(src.fetched) != 1 {
				t.Errorf("fetched %v", src.fetched)
			}
		}
	}
}

// U23: several images in one change; what they share is unpacked once.
func TestSeveralInOneChange(t *testing.T) {
	one := testimage.NewImage(17, testimage.ImageOptions{Layers: 3})
	two := testimage.NewImage(18, testimage.ImageOptions{Tars: [][]byte{one.Layers[0].Tar, one.Layers[1].Tar, testimage.PackTar()}})
	st := newStore(t, "overlay")
	src := source(one, two)
	err := transfer.Change(t.Context(), st.Store, "load", func(ctx context.Context, tx *store.Tx) error {
		for i, manifest := range [][]byte{one.Manifest, two.Manifest} {
			img, err := transfer.Read(ctx, src, manifest)
			if err != nil {
				return err
			}
			rec, _, err := img.Unpack(ctx, tx, transfer.Options{})
			if err != nil {
				return err
			}
			rec.Names = []string{fmt.Sprint("image", i)}
			tx.PutImage(rec)
		}
		return nil
	})
	must(t, err)
	count := map[digest.Digest]int{}
	for _, d := range src.fetched {
		count[d]++
	}
	for d, n := range count {
		if n > 1 {
			t.Errorf("%s was fetched %d times", d, n)
		}
	}
	layers, err := st.Storage().Layers()
	if err != nil || len(layers) != 4 {
		t.Errorf("%d layers, %v", len(layers), err)
	}
}

// U10, U11, U19: threads and processes unpack the same image at the same time; there is one, and nobody fails.
func TestManySides(t *testing.T) {
	img := testimage.NewImage(19, testimage.ImageOptions{Layers: 6, Gzip: true, Change: func(c map[string]any) {
		c["architecture"] = runtime.GOARCH // as the processes want it
	}})
	dir := t.TempDir()
	must(t, img.WriteOCI(dir, "a"))
	st := newStore(t, "overlay")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			if i%2 == 0 {
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), envChild+"="+st.root+"\n"+dir)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
				return
			}
			if _, err := pull(t, st, source(img), transfer.PullOptions{Names: []string{"same"}, AnyPlatform: true}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	layers, err := st.Storage().Layers()
	if err != nil || len(layers) != 6 {
		t.Errorf("%d layers, %v", len(layers), err)
	}
	for _, l := range layers {
		must(t, st.ExportLayer(t.Context(), l.ID, io.Discard))
	}
	if problems, err := st.Check(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	if left, _ := filepath.Glob(st.root + "/root/overlay/staging/*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// BenchmarkPull is 60 small layers, and one large one, into an empty store.
func BenchmarkPull(b *testing.B) {
	large := testimage.PackTar(testimage.Member{Header: tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644, Size: 128 << 20}, Content: strings.Repeat("0123456789abcdef", 8<<20)})
	for name, img := range map[string]testimage.Image{
		"60 layers": testimage.NewImage(20, testimage.ImageOptions{Layers: 60, Gzip: true}),
		"large":     testimage.NewImage(21, testimage.ImageOptions{Tars: [][]byte{large}, Gzip: true}),
	} {
		b.Run(name, func(b *testing.B) {
			src := source(img)
			for b.Loop() {
				b.StopTimer()
				st := newStore(b, "overlay")
				b.StartTimer()
				_, err := pull(b, st, src, transfer.PullOptions{})
				must(b, err)
			}
		})
	}
}
