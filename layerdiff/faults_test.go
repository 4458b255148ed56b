package layerdiff_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/layerdiff/view"
)

// quiet checks that a test leaves no goroutine and no open file behind.
func quiet(t *testing.T) {
	t.Helper()
	count := func() (int, int) {
		fds, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return runtime.NumGoroutine(), len(fds)
	}
	if r, w, err := os.Pipe(); err == nil { // the runtime opens its poller with the first of these
		must(t, r.Close(), w.Close())
	}
	routines, files := count()
	t.Cleanup(func() {
		var r, f int
		for range 500 {
			if r, f = count(); r <= routines && f <= files {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%d goroutines and %d files before, %d and %d after", routines, files, r, f)
	})
}

// A tree whose first file is large, so that what a test does when its first bytes come out happens long before the rest
// is read.
func slowTree(rest ...testimage.Node) testimage.Tree {
	return append(testimage.Tree{{Path: "a", Mode: 0o644, Fill: 4 << 20}}, rest...)
}

// once runs f at the first progress of a layer, on the goroutine that emits it.
func once(f func()) func(int64) {
	done := false
	return func(int64) {
		if !done {
			done = true
			f()
		}
	}
}

// What changes while it is read is an error that names it, not a layer that never was.
func TestChangesWhileReading(t *testing.T) {
	big := testimage.Node{Path: "z", Mode: 0o644, Fill: 1 << 20}
	var many []testimage.Node
	for i := range 1000 {
		many = append(many, testimage.Node{Path: fmt.Sprintf("m%04d", i), Mode: 0o644})
	}
	for _, c := range []struct {
		name, text string
		tree       testimage.Tree
		do         func(dir string) error
	}{
		{"content", "/a: changed", slowTree(), func(dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "a"), os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt([]byte("x"), 3<<20)
			}
			return errors.Join(err, f.Close())
		}},
		{"shorter", "/a: changed", slowTree(), func(dir string) error { return os.Truncate(filepath.Join(dir, "a"), 3<<20) }},
		{"longer", "/a: changed", slowTree(), func(dir string) error { return os.Truncate(filepath.Join(dir, "a"), 5<<20) }},
		{"mode", "/a: changed", slowTree(), func(dir string) error { return os.Chmod(filepath.Join(dir, "a"), 0o600) }},
		{"vanished", "/z: it vanished", slowTree(big), func(dir string) error { return os.Remove(filepath.Join(dir, "z")) }},
		{"a link now", "/z: it vanished", slowTree(big), func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "z")), os.Symlink("/etc/passwd", filepath.Join(dir, "z")))
		}},
		{"a pipe now", "/z: ", slowTree(big), func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "z")), unix.Mkfifo(filepath.Join(dir, "z"), 0o600))
		}},
		{"new name", "/: changed", slowTree(many...), func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "new"), nil, 0o644)
		}},
		{"small file vanished", "/m0999: it vanished", slowTree(many...), func(dir string) error {
			return os.Remove(filepath.Join(dir, "m0999"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			quiet(t)
			for _, stage := range []bool{false, true} {
				stack := upper(t, c.tree)
				var injected error
				o := layerdiff.Options{Progress: once(func() { injected = c.do(stack.Upper) })}
				var err error
				if stage {
					_, err = layerdiff.Stage(t.Context(), tempDir(t), io.Discard, stack, o)
				} else {
					_, err = layerdiff.Write(t.Context(), io.Discard, stack, o)
				}
				must(t, injected)
				if !errors.Is(err, kimg.ErrBusy) || !strings.Contains(kimg.Line(err), c.text) {
					t.Errorf("stage %v: %s, want busy %q", stage, kimg.Line(err), c.text)
				}
			}
		})
	}
}

// Every failure ends every goroutine and closes every file.
func TestFailuresLeaveNothingRunning(t *testing.T) {
	var tree testimage.Tree
	for i := range 1500 {
		tree = append(tree, testimage.Node{Path: fmt.Sprintf("d%02d/s%d/f%04d", i%50, i%7, i), Mode: 0o644, Fill: 3000})
	}
	tree = append(tree, testimage.Node{Path: "zz/.wh.bad", Mode: 0o644})
	stack := upper(t, tree)
	t.Run("refused name", func(t *testing.T) {
		quiet(t)
		refused(t, stack, layerdiff.Options{}, kimg.ErrUnsupported, "/zz/.wh.bad: ")
	})
	must(t, os.RemoveAll(filepath.Join(stack.Upper, "zz")))
	t.Run("writer fails", func(t *testing.T) {
		quiet(t)
		for _, n := range []int{0, 1000, 1 << 20} {
			_, err := layerdiff.Write(t.Context(), &failing{left: n}, stack, layerdiff.Options{})
			if !errors.Is(err, unix.ENOSPC) || kimg.ClassOf(err) != kimg.ErrNoSpace {
				t.Errorf("after %d bytes: %v", n, err)
			}
			_, err = layerdiff.Stage(t.Context(), tempDir(t), &failing{left: n}, stack, layerdiff.Options{})
			if !errors.Is(err, unix.ENOSPC) {
				t.Errorf("after %d bytes: %v", n, err)
			}
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		quiet(t)
		for _, after := range []int64{0, 1, 2 << 20} {
			ctx, cancel := context.WithCancel(t.Context())
			var at time.Time
			o := layerdiff.Options{Progress: func(n int64) {
				if n >= after && at.IsZero() {
					at = time.Now()
					cancel()
				}
			}}
			if after == 0 {
				at = time.Now()
				cancel()
			}
			_, err := layerdiff.Stage(ctx, tempDir(t), io.Discard, stack, o)
			if kimg.ClassOf(err) != kimg.ErrInterrupted || !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			if d := time.Since(at); d > 5*time.Second { // far less, but machines are busy
				t.Errorf("took %v to end", d)
			}
			for _, err = range layerdiff.Changes(ctx, stack, layerdiff.Options{}) {
			}
			if kimg.ClassOf(err) != kimg.ErrInterrupted {
				t.Errorf("%v", err)
			}
			cancel()
		}
	})
	t.Run("list not read to its end", func(t *testing.T) {
		quiet(t)
		for range layerdiff.Changes(t.Context(), stack, layerdiff.Options{}) {
			break
		}
	})
	t.Run("nothing there", func(t *testing.T) {
		quiet(t)
		for _, s := range []view.Stack{{Upper: "/nonexistent"}, {Upper: stack.Upper, Lowers: []string{"/", "/nonexistent"}}} {
			refused(t, s, layerdiff.Options{}, kimg.ErrNotFound, "/nonexistent: ")
		}
	})
	t.Run("staging directory in use", func(t *testing.T) {
		quiet(t)
		dir := tempDir(t)
		must(t, os.WriteFile(filepath.Join(dir, "x"), nil, 0o644))
		if _, err := layerdiff.Stage(t.Context(), dir, nil, stack, layerdiff.Options{}); !errors.Is(err, kimg.ErrExists) {
			t.Errorf("%v", err)
		}
	})
}

// More attributes than a header may have are refused by name.
func TestAttributesTooLarge(t *testing.T) {
	quiet(t)
	dir, err := os.MkdirTemp("/dev/shm", "layerdiff-") // most file systems hold less
	if err != nil {
		testenv.Skip(t, "no shared memory: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755), os.WriteFile(filepath.Join(dir, "d/f"), nil, 0o644))
	for i := range 17 {
		must(t, unix.Setxattr(filepath.Join(dir, "d/f"), fmt.Sprint("user.", i), bytes.Repeat([]byte("v"), 64<<10), 0))
	}
	stack := view.Stack{Upper: dir, XattrPrefix: prefix()}
	_, err = layerdiff.Write(t.Context(), io.Discard, stack, layerdiff.Options{})
	if !errors.Is(err, kimg.ErrLimit) || !strings.Contains(kimg.Line(err), "/d/f: ") {
		t.Errorf("%v", err)
	}
	_, err = layerdiff.Stage(t.Context(), tempDir(t), nil, stack, layerdiff.Options{})
	if !errors.Is(err, kimg.ErrLimit) || !strings.Contains(kimg.Line(err), "/d/f: ") {
		t.Errorf("%v", err)
	}
}

// failing is a full disk.
type failing struct{ left int }

func (f *failing) Write(p []byte) (int, error) {
	if len(p) > f.left {
		return 0, unix.ENOSPC
	}
	f.left -= len(p)
	return len(p), nil
}

// Sockets stay out and are listed; what they replaced is gone all the same.
func TestSockets(t *testing.T) {
	lower := upper(t, testimage.Tree{{Path: "run/b", Mode: 0o644, Data: "file"}})
	stack := upper(t, testimage.Tree{{Path: "run/a", Type: 's'}, {Path: "run/b", Type: 's'}}, lower.Upper)
	data, blob := layer(t, stack, layerdiff.Options{})
	if got := names(t, data); got != "run/ run/.wh.b" || fmt.Sprint(blob.LeftOut) != "[{/run/a a socket} {/run/b a socket}]" {
		t.Errorf("%s %v", got, blob.LeftOut)
	}
	if got := fmt.Sprint(changes(t, stack, layerdiff.Options{})); got != "[C/run D/run/b]" {
		t.Errorf("%s", got)
	}
}

// Holes stay holes in the copy, and zeros in the stream.
func TestSparseFiles(t *testing.T) {
	stack := upper(t, testimage.Tree{
		{Path: "all", Mode: 0o644, Size: 64 << 20},
		{Path: "end", Mode: 0o644, Fill: 5000, Size: 32<<20 + 17},
		{Path: "small", Mode: 0o644, Size: 40000},
	})
	f, err := os.OpenFile(filepath.Join(stack.Upper, "all"), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("island"), 40<<20)
	must(t, err, f.Close())
	dir, blob := staged(t, stack, layerdiff.Options{})
	if blob.Size < 96<<20 {
		t.Errorf("%+v", blob)
	}
	same(t, "staged", snapshot(t, stack.Upper, false), snapshot(t, dir, false))
	for _, name := range []string{"all", "end", "small"} {
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Join(dir, name), &st))
		if st.Blocks*512 > 64<<10 {
			t.Errorf("%s takes %d bytes", name, st.Blocks*512)
		}
	}
}

// With Links the staged layer shares its files with the upper directory; where that cannot be, it copies.
func TestLinks(t *testing.T) {
	stack := upper(t, testimage.Random(5, 80))
	ino := func(dir, name string) uint64 {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(dir, name), &st))
		return st.Ino
	}
	want := snapshot(t, stack.Upper, false)
	dir, _ := staged(t, stack, layerdiff.Options{Links: true})
	for _, i := range want {
		if shared := ino(dir, i.Path) == ino(stack.Upper, i.Path); shared != (i.Type != 'd') {
			t.Errorf("%q: shared %v", i.Path, shared)
		}
	}
	same(t, "upper", want, snapshot(t, stack.Upper, false))

	elsewhere, err := os.MkdirTemp("/dev/shm", "layerdiff-")
	if err != nil {
		testenv.Skip(t, "no second file system: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(elsewhere) })
	_, err = layerdiff.Stage(t.Context(), elsewhere, nil, stack, layerdiff.Options{Links: true})
	must(t, err)
	same(t, "copied", want, snapshot(t, elsewhere, false))
}

// What the staging directory would hand down to its files does not reach the layer.
func TestStagingDirectoryIsForeign(t *testing.T) {
	stack := upper(t, testimage.Random(9, 60))
	dir := tempDir(t)
	must(t, os.Chown(dir, 0, 4711), unix.Chmod(dir, 0o2777),
		unix.Setxattr(dir, "system.posix_acl_default", []byte(testimage.ACL(0o777, map[uint32]uint16{99: 7}, nil)), 0))
	old := unix.Umask(0o077)
	_, err := layerdiff.Stage(t.Context(), dir, nil, stack, layerdiff.Options{})
	unix.Umask(old)
	must(t, err)
	same(t, "staged", snapshot(t, stack.Upper, false), snapshot(t, dir, false))
}

// A layer deeper than a path can be said in one piece is refused; one just short of it is not.
func TestDeepTrees(t *testing.T) {
	stack := upper(t, testimage.Tree{{Path: strings.Repeat("d/", 600) + "f", Mode: 0o644, Data: "x"}})
	if _, blob := staged(t, stack, layerdiff.Options{}); blob.Entries != 601 {
		t.Errorf("%d entries", blob.Entries)
	}
	fd, err := unix.Open(stack.Upper, unix.O_DIRECTORY, 0)
	must(t, err)
	long := strings.Repeat("n", 250)
	for range 17 {
		must(t, unix.Mkdirat(fd, long, 0o755))
		next, err := unix.Openat(fd, long, unix.O_DIRECTORY, 0)
		must(t, err, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
	_, err = layerdiff.Write(t.Context(), &bytes.Buffer{}, stack, layerdiff.Options{})
	if !errors.Is(err, kimg.ErrLimit) || len(kimg.Line(err)) > 1024 {
		t.Errorf("%v", err)
	}
}
