//go:build interop

package interop

import (
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

// goldenBlobs is the layer of TestDigestsAreEqualEverywhere in every compression, for root and for an ordinary user. They change
// with the layer format, and the last two with a compressor: changes users see, for their layers are pushed again.
var goldenBlobs = map[string]string{
	"none": "sha256:8bca0691667fd81608d6a4f7b88913acb209ec0491e4630f8d744e1ad2a4544f",
	"gzip": "sha256:94a216aeaae886cd71bf17497dffd8966fdd229e02dab71d7dea6a1ee6a4825d",
	"zstd": "sha256:564f3b12693ee47588725dce743cd4a2932be5102c08f25ecc3e5a90ee63831a",
}

// TestDigestsAreEqualEverywhere: equal content is an equal layer, and equal blobs, on whatever file system, kept in whatever
// way, on however many processors, mounted or not, with ids mapped or not.
func TestDigestsAreEqualEverywhere(t *testing.T) {
	base := lab.SmallBase(t)
	overlay := func(options string) []string {
		return []string{"--storage-driver", "overlay", "--storage-opt", "overlay." + options}
	}
	const moving, moved, copied = "mountopt=nodev,redirect_dir=on", "trusted.overlay.redirect", "trusted.overlay.metacopy"
	for _, c := range []struct {
		name    string
		rooted  bool              // an ordinary user cannot have it
		disk    string            // kind of file system
		storage []string          // flags of the store
		marks   map[string]string // what the kernel must have put on a file
		env     string
		from    []string // flags of the container
		before  func(t *testing.T, s *lab.Store)
	}{
		{name: "plain"},
		{name: "ext4", rooted: true, disk: "ext4"},
		{name: "xfs", rooted: true, disk: "xfs"},
		{name: "tmpfs", disk: "tmpfs"},
		{name: "GOMAXPROCS=1", env: "GOMAXPROCS=1"},
		{name: "one core", before: func(t *testing.T, _ *lab.Store) { oneCore(t) }},
		{name: "mounted", before: func(_ *testing.T, s *lab.Store) { s.Kimg("mount", "c") }},
		{name: "mapped ids", from: idMap()},
		{name: "mapped ids without mapped mounts", from: idMap(), env: "_CONTAINERS_OVERLAY_DISABLE_IDMAP=yes"},
		{name: "redirect_dir=on", rooted: true, storage: overlay(moving), marks: map[string]string{"var/lib/moved": moved}},
		{name: "metacopy=on", rooted: true, storage: overlay("mountopt=nodev,metacopy=on"), marks: map[string]string{"usr/bin/tool": copied}},
		{name: "redirect_dir=on,metacopy=on", rooted: true, storage: overlay(moving + ",metacopy=on"),
			marks: map[string]string{"var/lib/moved": moved, "usr/bin/tool": copied}},
		{name: "fuse-overlayfs", storage: overlay("mount_program=" + testenv.FUSE(t))},
		{name: "vfs", storage: []string{"--storage-driver", "vfs"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.rooted {
				testenv.Root(t)
			}
			dir := ""
			if c.disk != "" {
				dir = lab.Disk(t, c.disk)
			}
			s := lab.NewStore(t, dir)
			if c.storage != nil {
				s.Storage = c.storage
			}
			if c.env != "" {
				s.Env = []string{c.env}
			}
			s.Kimg("import", base, "localhost/base")
			s.Kimg(append(append([]string{"from", "--name", "c"}, c.from...), "localhost/base")...)
			s.In("c", "change", "one", "two", "mapped", "moved", "frames")
			if c.before != nil {
				c.before(t, s)
			}
			for compression, want := range goldenBlobs {
				out := filepath.Join(lab.TempDir(t), "layout")
				s.Kimg("commit", "--timestamp", "1700000000", "--compression", compression, "c", "oci:"+out+":t")
				if layers := layoutManifest(t, out).Layers; len(layers) != 2 || layers[1].Digest != want {
					t.Errorf("%s: layers %v, want %s on top", compression, layers, want)
				}
			}
			s.Kimg("commit", "c", "localhost/result")
			if got := s.Kimg("inspect", "--format", "{{index .OCI.RootFS.DiffIDs 1}}", "localhost/result"); got != goldenBlobs["none"] {
				t.Errorf("in the store: layer %s", got)
			}
			for path, mark := range c.marks {
				at, err := filepath.Glob(filepath.Join(s.Root, "overlay", "*", "diff", path))
				if err != nil || !slices.ContainsFunc(at, func(p string) bool { _, err := unix.Lgetxattr(p, mark, nil); return err == nil }) {
					t.Errorf("no %s of %v has %s: the test does not test what it says", path, at, mark)
				}
			}
		})
	}
}

// oneCore lets what the test starts from now on run on one processor only.
func oneCore(t *testing.T) {
	runtime.LockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.SchedSetaffinity(0, &all)
		runtime.UnlockOSThread()
	})
}
