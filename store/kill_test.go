package store_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kimg/kimg/internal/failpoint"
	"github.com/kimg/kimg/internal/testenv"
)

const (
	envChild  = "KIMG_STORE_TEST_CHILD" // which operation a re-executed test binary runs
	envRoot   = "KIMG_STORE_TEST_ROOT"
	envDriver = "KIMG_STORE_TEST_DRIVER" // "": overlay

	envFailpoints = "KIMG_STORE_TEST_FAILPOINTS" // a test binary with failpoints
)

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
	_, err, killed = ts.child(t, op, what)
	return err, killed
}

// child is run with what the child says.
func (ts *testStore) child(t testing.TB, op, what string) (out []byte, err error, killed bool) {
	t.Helper()
	bin := os.Args[0]
	if what != "" {
		if bin, err = failpointBinary(); err != nil {
			testenv.Skip(t, "cannot build with failpoints: %v", err)
		}
	}
	cmd := exec.Command(bin)
	cmd.Env = append(os.Environ(), envChild+"="+op, envRoot+"="+filepath.Dir(ts.root), envDriver+"="+ts.driver, "KIMG_FAILPOINT="+what)
	out, err = cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
		return out, nil, true
	}
	if err != nil {
		err = fmt.Errorf("%s: %s", err, out)
	}
	return out, err, false
}

// passes runs an operation and returns the failpoints that it passes.
func (ts *testStore) passes(t testing.TB, op string) []string {
	t.Helper()
	out, err, _ := ts.child(t, op, strings.Join(failpoint.Names(), "=tell,")+"=tell")
	must(t, err)
	return slices.Compact(slices.Sorted(strings.FieldsSeq(string(out))))
}

var (
	randomLink = regexp.MustCompile(`(?m)^overlay/l .*\n`)
	leaseName  = regexp.MustCompile(`kimg-lease-[0-9a-f]{12}`)
	known      = regexp.MustCompile(`(?m)^(kimg (intent|recorded|released)-|container CTR-lease )`)
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
	for _, op := range []string{"import", "step commit", "commit copy"} { // those that differ
		all = append(all, [2]string{op, "vfs"})
	}
	for _, what := range all {
		op, driver := what[0], what[1]
		ts := prepareFor(t, op, driver)
		before := ts.shape(t)
		points := ts.passes(t, op)
		after := ts.shape(t)
		for _, point := range points {
			for _, how := range []string{"kill", "error"} {
				t.Run(op+driver+"/"+point+"/"+how, func(t *testing.T) {
					t.Parallel()
					strikeAt(t, op, driver, point, how, before, after)
				})
			}
		}
		last := map[string]string{"commit links": "container.rm.end", "import": "image.put.begin"}[op]
		for _, point := range failpoint.Names() {
			if last != "" && driver == "" && strings.HasPrefix(point, "recover.") {
				t.Run(op+"/"+point, func(t *testing.T) {
					t.Parallel()
					strikeAt(t, op, driver, last, "kill", before, after, point)
				})
			}
		}
	}
}

// strikeAt kills or fails an operation at one place, and then recovery. The store is then as before or as after it, and the operation works.
func strikeAt(t *testing.T, op, driver, point, how, before, after string, recovery ...string) {
	ts := prepareFor(t, op, driver)
	err, killed := ts.run(t, op, point+"="+how)
	if how == "kill" && !killed {
		t.Fatal("not killed:", err)
	}
	for _, point := range recovery {
		if _, killed := ts.run(t, "open", point+"=kill"); !killed {
			t.Error("recovery was not killed")
		}
	}
	got := ts.shape(t)
	if how == "kill" || got != before && (err != nil || got != after) {
		// What cannot be taken back at once is cleared by the next use of the store, and a lease by whoever collects garbage.
		ts.Store = ts.open(t)
		if err, _ := ts.run(t, "open", ""); err != nil {
			t.Fatal(err)
		}
		dead, err := ts.Garbage(t.Context(), time.Time{})
		must(t, err)
		_, err = ts.Collect(t.Context(), dead, time.Time{})
		must(t, err)
		if how == "error" && got != before && !known.MatchString(got) {
			t.Errorf("a failure left something and nobody knows:\n%s", diff(before, got))
		}
		got = ts.shape(t)
	}
	if got != before && got != after {
		t.Errorf("neither before nor after.\nfrom before:\n%s\nfrom after:\n%s", diff(before, got), diff(after, got))
	}
	if how == "error" && err == nil && got != after {
		t.Errorf("it was done and is not:\n%s", diff(after, got))
	}
	if got == before && got != after {
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
