package store_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg/internal/failpoint"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/store"
)

const (
	envChild  = "KIMG_STORE_TEST_CHILD" // which operation a re-executed test binary runs
	envRoot   = "KIMG_STORE_TEST_ROOT"
	envDriver = "KIMG_STORE_TEST_DRIVER" // "": overlay

	envFailpoints = "KIMG_STORE_TEST_FAILPOINTS" // a test binary with failpoints
)

// operations are changes a child process makes, each in one call, on a store prepare has set up.
var operations = map[string]func(ctx context.Context, s *store.Store) error{
	"open":  func(context.Context, *store.Store) error { return nil },
	"layer": func(ctx context.Context, s *store.Store) error { return addLayer(ctx, s, "", "second") },
	"import": func(ctx context.Context, s *store.Store) error {
		return importImage(ctx, s, "localhost/base:latest", "one", "two", "three") // the name moves
	},
	"from": func(ctx context.Context, s *store.Store) error {
		img, err := s.Resolve(ctx, "base", nil)
		if err != nil {
			return err
		}
		_, err = s.NewContainer(ctx, img, store.ContainerOptions{Name: "made"})
		return err
	},
	"rm": func(ctx context.Context, s *store.Store) error {
		c, err := s.Container(ctx, "old")
		if err != nil {
			return err
		}
		return c.Remove(ctx)
	},
	"rmi": func(ctx context.Context, s *store.Store) error {
		_, err := s.DeleteImage(ctx, "unused", false)
		return err
	},
	"tag": func(ctx context.Context, s *store.Store) error { _, err := s.Tag(ctx, "unused", "base"); return err },
	"lease": func(ctx context.Context, s *store.Store) error {
		_, err := s.Lease(ctx, store.LeaseOptions{Image: "unused", Detached: true})
		return err
	},
	"list":         importList,
	"manifest":     func(ctx context.Context, s *store.Store) error { return listImage(ctx, s, "listed", "unused") },
	"commit links": func(ctx context.Context, s *store.Store) error { return commitContainer(ctx, s, true) },
	"commit copy":  func(ctx context.Context, s *store.Store) error { return commitContainer(ctx, s, false) },
}

// child is main of a re-executed test binary.
func child(op string) {
	dir := os.Getenv(envRoot)
	s, err := store.Open(store.Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: cmp.Or(os.Getenv(envDriver), "overlay"), DriverOptions: []string{}, NoSync: true})
	run := operations[op]
	if run == nil {
		run = helpers[op]
	}
	if err == nil {
		err = run(context.Background(), s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func addLayer(ctx context.Context, s *store.Store, parent, name string) error {
	_, err := s.AddLayer(ctx, parent, store.TarSource(bytes.NewReader(makeTar(nil, file{name: name, content: name}))))
	return err
}

// importImage puts an image of several layers in one change.
func importImage(ctx context.Context, s *store.Store, name string, layers ...string) error {
	return s.Change(ctx, "import", func(ctx context.Context, tx *store.Tx) error {
		var diffIDs []digest.Digest
		parent := ""
		for _, l := range layers {
			staged, err := tx.StageLayer(ctx, parent, store.TarSource(bytes.NewReader(makeTar(nil, file{name: l, content: l}))))
			if err != nil {
				return err
			}
			parent, diffIDs = staged.ID, append(diffIDs, staged.DiffID)
		}
		tx.PutImage(record(nil, "import", parent, []string{name}, diffIDs...))
		return nil
	})
}

// importList puts an index with one image, whose layer keeps its blob.
func importList(ctx context.Context, s *store.Store) error {
	return s.Change(ctx, "import", func(ctx context.Context, tx *store.Tx) error {
		tar := makeTar(nil, file{name: "listed", content: "x"})
		spool, err := tx.SpoolBlob()
		if err != nil {
			return err
		}
		if _, err := spool.Write(tar); err != nil {
			return err
		}
		l, err := tx.StageLayer(ctx, "", store.TarSource(bytes.NewReader(tar)))
		if err != nil {
			return err
		}
		if err := tx.KeepBlob(l, spool, digest.FromBytes(tar)); err != nil {
			return err
		}
		img := record(nil, "listed", l.ID, nil, l.DiffID)
		tx.PutImage(img)
		d := digest.FromBytes(img.Manifest)
		index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, img.ManifestType, d, len(img.Manifest))
		return tx.PutList(ctx, store.ListRecord{Names: []string{"base", "list"}, Index: index, Instances: map[digest.Digest]string{d: img.ID()}})
	})
}

// commitContainer turns the container "old" into an image and removes it, in the order of a commit that shares files with
// the container, or that has copied them.
func commitContainer(ctx context.Context, s *store.Store, links bool) error {
	c, err := s.Container(ctx, "old")
	if err != nil {
		return err
	}
	base, err := c.Base(ctx)
	if err != nil {
		return err
	}
	return s.Change(ctx, "commit", func(ctx context.Context, tx *store.Tx) error {
		below, err := base.Layers(ctx)
		if err != nil {
			return err
		}
		l, err := tx.StageLayer(ctx, base.TopLayer, store.TarSource(bytes.NewReader(makeTar(nil, file{name: "committed", content: "x"}))))
		if err != nil {
			return err
		}
		if links {
			tx.RemoveContainer(c.ID)
		}
		tx.PutImage(record(nil, "commit", l.ID, []string{"base", "committed"}, below[0].DiffID, l.DiffID))
		if !links {
			tx.RemoveContainer(c.ID)
		}
		return nil
	})
}

// prepare fills a store: an image with a container, another without.
func prepare(t testing.TB) *testStore { return prepareOf(t, "") }

func prepareOf(t testing.TB, driver string) *testStore {
	ts := newStoreOf(t, driver)
	base := ts.addImage(t, "base-file", "base")
	ts.addImage(t, "unused-file", "unused")
	if _, err := ts.NewContainer(t.Context(), base, store.ContainerOptions{Name: "old"}); err != nil {
		t.Fatal(err)
	}
	return ts
}

// prepareFor makes a list as well, for the operation that changes one.
func prepareFor(t testing.TB, op, driver string) *testStore {
	ts := prepareOf(t, driver)
	if op == "manifest" {
		base, err := ts.Resolve(t.Context(), "base", nil)
		if err != nil {
			t.Fatal(err)
		}
		index, data := addTo(t, nil, base)
		if _, err := ts.PutList(t.Context(), store.ListRecord{Names: []string{"listed"}, Index: index, Instances: data}); err != nil {
			t.Fatal(err)
		}
	}
	return ts
}

// failpointDir holds the binary failpointBinary has built; it goes when the tests have run.
var failpointDir string

// failpointBinary is this test binary with failpoints. Who runs the tests where the Go command cannot build names one.
var failpointBinary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(envFailpoints); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "kimg-store-test-")
	if err != nil {
		return "", err
	}
	failpointDir = dir
	path := filepath.Join(dir, "store.test")
	cmd := exec.Command("go", "test", "-c", "-tags=containers_image_openpgp,exclude_graphdriver_btrfs,kimg_failpoints", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// run runs an operation in a child process; what says what happens at which failpoint, "" nothing.
func (ts *testStore) run(t testing.TB, op, what string) (err error, killed bool) {
	t.Helper()
	bin := os.Args[0]
	if what != "" {
		var err error
		if bin, err = failpointBinary(); err != nil {
			testenv.Skip(t, "cannot build with failpoints: %v", err)
		}
	}
	cmd := exec.Command(bin)
	cmd.Env = append(os.Environ(), envChild+"="+op, envRoot+"="+filepath.Dir(ts.root), envDriver+"="+ts.driver, "KIMG_FAILPOINT="+what)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
		return nil, true
	}
	if err != nil {
		err = fmt.Errorf("%s: %s", err, out)
	}
	return err, false
}

var (
	randomLink = regexp.MustCompile(`(?m)^overlay/l .*\n`)
	leaseName  = regexp.MustCompile(`kimg-lease-[0-9a-f]{12}`)
	randomIDs  = regexp.MustCompile(`(?m)^container ([0-9a-f]{64}) \[(\S+)\] ([0-9a-f]{64})$`)
)

// shape is the inventory without random ids: equal for the results of equal commands.
func (ts *testStore) shape(t testing.TB) string {
	t.Helper()
	text := ts.inventory(t)
	links := len(randomLink.FindAllString(text, -1))
	text = randomLink.ReplaceAllString(text, "")
	text = leaseName.ReplaceAllString(text, "lease")
	for _, m := range randomIDs.FindAllStringSubmatch(text, -1) {
		text = strings.NewReplacer(m[1], "CTR-"+m[2], m[3], "RW-"+m[2]).Replace(text)
	}
	return fmt.Sprintf("%slinks %d\n", sortLines(text), links)
}

func TestKilledAnywhere(t *testing.T) {
	var all [][2]string // operation, driver
	for op := range operations {
		if op != "open" {
			all = append(all, [2]string{op, ""})
		}
	}
	for _, op := range []string{"layer", "import", "commit copy"} { // those that differ
		all = append(all, [2]string{op, "vfs"})
	}
	for _, what := range all {
		op, driver := what[0], what[1]
		ts := prepareFor(t, op, driver)
		before := ts.shape(t)
		if err, _ := ts.run(t, op, ""); err != nil {
			t.Fatal(op, err)
		}
		after := ts.shape(t)
		for _, point := range failpoint.Names() {
			for _, how := range []string{"kill", "error"} {
				t.Run(op+driver+"/"+point+"/"+how, func(t *testing.T) {
					t.Parallel()
					strikeAt(t, op, driver, point, how, before, after)
				})
			}
		}
	}
}

// strikeAt kills or fails an operation at one place. The store is then as before or as after it, and the operation works.
func strikeAt(t *testing.T, op, driver, point, how, before, after string) {
	ts := prepareFor(t, op, driver)
	first := point
	if strings.HasPrefix(point, "recover.") {
		if op != "commit links" && op != "import" || how != "kill" {
			return
		}
		first = "container.rm.end"
		if op == "import" {
			first = "image.put.begin"
		}
	}
	err, killed := ts.run(t, op, first+"="+how)
	if !killed && err == nil {
		if got := ts.shape(t); got != after {
			t.Errorf("not struck, yet not done:\n%s", diff(after, got))
		}
		return // this operation does not pass there
	}
	if first != point {
		if _, killed := ts.run(t, "open", point+"=kill"); !killed {
			t.Error("recovery was not killed")
		}
	}
	got := ts.shape(t)
	if how == "kill" || got != before {
		// What cannot be taken back at once is cleared by the next use of the store.
		ts.Store = ts.open(t)
		if err, _ := ts.run(t, "open", ""); err != nil {
			t.Fatal(err)
		}
		if how == "error" && got != before && !strings.Contains(got, "kimg intent-") && !strings.Contains(got, "kimg recorded-") {
			t.Errorf("a failure left something and nobody knows:\n%s", diff(before, got))
		}
		got = ts.shape(t)
	}
	if got != before && got != after {
		t.Errorf("neither before nor after.\nfrom before:\n%s\nfrom after:\n%s", diff(before, got), diff(after, got))
	}
	if got == before {
		if err, _ := ts.run(t, op, ""); err != nil {
			t.Errorf("repeating: %v", err)
		}
		if got := ts.shape(t); got != after {
			t.Errorf("the repeated operation gives something else:\n%s", diff(after, got))
		}
	}
	problems, err := ts.Check(t.Context())
	if err != nil || len(problems) > 0 {
		t.Errorf("check: %+v, %v", problems, err)
	}
	images, err := ts.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range images {
		if img.IsList() {
			if l, err := img.List(t.Context()); err != nil || len(l.Entries[0].Missing) > 0 {
				t.Errorf("%+v, %v", l.Entries, err)
			}
			continue
		}
		if _, err := img.Config(t.Context()); err != nil {
			t.Error(err)
		}
		if err := ts.ExportLayer(t.Context(), img.TopLayer, io.Discard); err != nil {
			t.Error(err)
		}
	}
}
