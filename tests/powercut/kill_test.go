//go:build powercut

package powercut

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kimg/kimg/internal/failpoint"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

const killed = 128 + 9

// failing returns the build of kimg that can be killed on purpose.
func failing(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("KIMG_FAILPOINTS_BIN")
	if bin == "" {
		bin = filepath.Join(filepath.Dir(lab.Kimg(t)), "kimg-failpoints")
	}
	if _, err := os.Stat(bin); err != nil {
		testenv.Skip(t, "needs a binary with the tag kimg_failpoints: %v", err)
	}
	return bin
}

// TestKillAtEveryFailpoint kills each command at each place it passes. The next command works, a repeat succeeds, nothing
// is left. Places of the recovery itself are killed too.
func TestKillAtEveryFailpoint(t *testing.T) {
	bin := failing(t)
	base := lab.SmallBase(t)
	reached := map[string]bool{}
	for _, op := range []string{"commit", "commit --rm"} {
		want := lab.NewStore(t, "") // what an undisturbed commit gives
		prepare(want, base)
		args := append(strings.Fields(op), "c", "localhost/result")
		want.Bin = bin
		points := passed(t, want, args...)
		result := want.Audit().Images["localhost/result:latest"].DiffIDs

		for _, p := range failpoint.Names() {
			if strings.HasPrefix(p, "recover.") {
				for _, first := range []string{"layer.apply.end", "change.recorded", "change.intent", "container.rm.end"} {
					points = append(points, first+" then "+p)
				}
			}
		}
		for _, point := range points {
			t.Run(op+" at "+point, func(t *testing.T) {
				s := lab.NewStore(t, "")
				s.Bin = bin
				prepare(s, base)
				first, second, _ := strings.Cut(point, " then ")
				code := tryAt(s, first, args...)
				if code == killed {
					reached[first] = true
				} else if code != 0 {
					t.Fatalf("exit %d at a failpoint that was to kill", code)
				} else if second == "" {
					t.Error("not killed")
				}
				if second != "" && tryAt(s, second, "images") == killed {
					reached[second] = true
				}
				s.Kimg("images")
				a := s.Sound("after the next command")
				_, ctr := a.Containers["c"]
				_, img := a.Images["localhost/result:latest"]
				switch {
				case !ctr && !img:
					t.Fatal("neither container nor image is there")
				case !ctr && op == "commit":
					t.Fatal("the container is gone")
				case ctr:
					s.Kimg(args...)
				}
				a = s.Sound("after the repeat")
				if got := a.Images["localhost/result:latest"].DiffIDs; !slices.Equal(got, result) {
					t.Errorf("layers %v, an undisturbed commit gives %v", got, result)
				}
				if _, there := a.Containers["c"]; there != (op == "commit") {
					t.Errorf("after the repeat the container is there: %v", there)
				}
				if mounts := mountsBelow(t, s.Root); len(mounts) > 0 {
					t.Errorf("mounts are left: %v", mounts)
				}
				s.CheckClean()
			})
		}
	}
	for _, must := range []string{"change.begin", "change.staged", "change.synced", "change.recorded", "change.done", "layer.stage.end", "layer.apply.begin", "layer.apply.end", "image.put.end"} {
		if !reached[must] {
			t.Errorf("no command was killed at %s", must)
		}
	}
	t.Logf("%d places reached", len(reached))
}

func prepare(s *lab.Store, base string) {
	s.Kimg("import", base, "localhost/base")
	s.Kimg("from", "--name", "c", "localhost/base")
	s.In("c", "change", "one", "two")
}

// passed runs a command and returns the failpoints that it passes.
func passed(t *testing.T, s *lab.Store, args ...string) []string {
	t.Helper()
	env := s.Env
	defer func() { s.Env = env }()
	s.Env = append(slices.Clone(env), "KIMG_FAILPOINT="+strings.Join(failpoint.Names(), "=tell,")+"=tell")
	out := s.Try(args...)
	if out.Code != 0 {
		t.Fatalf("exit %d: %s", out.Code, out.Stderr)
	}
	told := slices.Compact(slices.Sorted(strings.FieldsSeq(string(out.Stderr))))
	return slices.DeleteFunc(told, func(word string) bool { return !slices.Contains(failpoint.Names(), word) })
}

// tryAt runs a command that is killed when it passes a failpoint, and returns its status.
func tryAt(s *lab.Store, point string, args ...string) int {
	env := s.Env
	defer func() { s.Env = env }()
	s.Env = append(slices.Clone(env), "KIMG_FAILPOINT="+point+"=kill")
	return s.Try(args...).Code
}

// mountsBelow lists mounts below a store, but for the directory the storage library mounts on itself.
func mountsBelow(t *testing.T, root string) []string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], root+"/overlay/") {
			found = append(found, f[4])
		}
	}
	return found
}
