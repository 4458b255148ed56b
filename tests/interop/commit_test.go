//go:build interop

package interop

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

// patience is how long kimg images may take while another process commits.
const patience = 50 * time.Millisecond

// TestImagesDuringCommit lists the images while another process commits 1 GiB: no lock may be held while data streams.
// On a machine that is busy, what a listing of another store takes at the same time is the measure.
func TestImagesDuringCommit(t *testing.T) {
	s, other := lab.NewStore(t, ""), lab.NewStore(t, "")
	s.Kimg("import", lab.SmallBase(t), "localhost/base")
	other.Kimg("import", lab.SmallBase(t), "localhost/base")
	s.Kimg("from", "--name", "c", "localhost/base")
	s.In("c", "change", "gigabyte")
	list := func(s *lab.Store) time.Duration {
		t.Helper()
		r := s.Try("images")
		if r.Code != 0 {
			t.Fatalf("images: %s", r.Stderr)
		}
		return r.Took
	}
	var during, elsewhere []time.Duration
	begin := time.Now()
	for len(during) < 5 { // of a fast disk it takes more than one commit
		commit := lab.Start(t, s.Env, s.Args("commit", "c", "localhost/result")...)
		done := make(chan error, 1)
		go func() { done <- commit.Wait() }()
		for committing := true; committing; time.Sleep(10 * time.Millisecond) {
			during, elsewhere = append(during, list(s)), append(elsewhere, list(other))
			select {
			case err := <-done:
				if err != nil {
					t.Fatalf("commit: %v", err)
				}
				committing = false
			default:
			}
		}
	}
	took := time.Since(begin)
	slices.Sort(during)
	slices.Sort(elsewhere)
	median, worst := during[len(during)/2], during[len(during)-1]
	usual, slowest := max(patience, 3*elsewhere[len(elsewhere)/2]), max(20*patience, 3*elsewhere[len(elsewhere)-1], took/3)
	t.Logf("%d listings in %v of the commit: median %v, worst %v; of another store: %v, %v", len(during), took, median, worst, elsewhere[len(elsewhere)/2], elsewhere[len(elsewhere)-1])
	if median > usual || worst > slowest { // a lock held while data streams would make one take as long as the commit
		t.Errorf("images took %v and up to %v during a commit, %v and %v are allowed", median, worst, usual, slowest)
	}
}

// TestReadOnlyTMPDIR: nothing of a commit goes to the temporary directory.
func TestReadOnlyTMPDIR(t *testing.T) {
	s := lab.NewStore(t, "")
	base := lab.SmallBase(t)
	s.Env = []string{"TMPDIR=/sys/kernel"}
	if err := os.WriteFile("/sys/kernel/kimg-probe", nil, 0o600); err == nil {
		t.Fatal("/sys/kernel is writable here")
	}
	s.Kimg("import", base, "localhost/base")
	s.Kimg("from", "--name", "c", "localhost/base")
	s.In("c", "change", "one", "two")
	s.Kimg("commit", "c", "localhost/result")
	layout := filepath.Join(lab.TempDir(t), "layout")
	s.Kimg("commit", "c", "oci:"+layout+":t")
	s.Kimg("commit", "--rm", "c", "again")
	for _, line := range strings.Split(s.Kimg("containers", "--quiet"), "\n") {
		if line != "" {
			t.Errorf("container %s is left after commit --rm", line)
		}
	}
	if n := len(layoutManifest(t, layout).Layers); n != 2 {
		t.Errorf("%d layers in the layout, wanted 2", n)
	}
}

// TestThreeShells: somebody mounts in one shell, writes in a second, commits in a third.
func TestThreeShells(t *testing.T) {
	s := lab.NewStore(t, "")
	s.Kimg("import", lab.SmallBase(t), "localhost/base")
	s.Kimg("from", "--name", "c", "localhost/base")
	path := s.Kimg("mount", "c")
	lab.Must(t, nil, "sh", "-c", "echo written > "+path+"/etc/new && rm "+path+"/etc/a")
	s.Kimg("commit", "c", "localhost/result")
	tree := s.ImageTree("podman", "localhost/result")
	if !strings.Contains(tree, `"etc/new" file`) || strings.Contains(tree, `"etc/a" `) {
		t.Errorf("the image does not hold what the second shell did:\n%s", tree)
	}
	if again := s.Kimg("mount", "c"); again != path {
		t.Errorf("a second mount says %s, the first said %s", again, path)
	}
	s.Kimg("umount", "c")
	s.Kimg("umount", "c")
	if _, err := os.Stat(filepath.Join(path, "etc")); err == nil {
		t.Error("still mounted after as many unmounts as mounts")
	}
}

// TestKilledKeeper kills the process that holds the namespace while a container is mounted. Counts of mounts that no
// longer exist must be healed before the next write, else it goes to a bare directory and is lost.
func TestKilledKeeper(t *testing.T) {
	testenv.Ordinary(t)
	for _, who := range []string{"kimg's own", "podman's pause process"} {
		t.Run(who, func(t *testing.T) {
			lab.Run(t, nil, "podman", "system", "migrate") // stops the pause process
			if who != "kimg's own" {
				lab.Must(t, nil, "podman", "unshare", "true")
			}
			s := lab.NewStore(t, "")
			s.Kimg("import", lab.SmallBase(t), "localhost/base")
			s.Kimg("from", "--name", "c", "localhost/base")
			path := s.Kimg("mount", "c")
			lab.Must(t, nil, "sh", "-c", "echo before > "+path+"/etc/before")
			keeper, _, ok := strings.Cut(strings.TrimPrefix(path, "/proc/"), "/root/")
			if !ok {
				t.Fatalf("mount printed %s: wanted a path through the keeper", path)
			}
			lab.Must(t, nil, "kill", "-9", keeper)
			for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // it may have to wait for its end
				if _, err := os.Stat(path); err != nil {
					break
				}
				if time.Now().After(end) {
					t.Fatal("the keeper does not end")
				}
			}

			path = s.Kimg("mount", "c")
			lab.Must(t, nil, "sh", "-c", "echo after > "+path+"/etc/after")
			s.Kimg("commit", "c", "localhost/result")
			s.Kimg("umount", "c")
			tree := s.ImageTree("podman", "localhost/result")
			for _, f := range []string{"etc/before", "etc/after", "etc/a"} {
				if !strings.Contains(tree, `"`+f+`" file`) {
					t.Errorf("%s is not in the image", f)
				}
			}
			bare, err := filepath.Glob(filepath.Join(s.Root, "overlay", "*", "merged", "*"))
			if err != nil || len(bare) > 0 {
				t.Errorf("written to a directory without a mount: %v %v", bare, err)
			}
			s.Kimg("rm", "c") // the count is right: one mount, one unmount
			s.CheckClean()
		})
	}
}
