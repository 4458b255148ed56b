package scripts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
)

// TestScripts runs every script of this directory on a store of its own. What scripts have besides the usual commands:
//
//	exits CODE PROGRAM ARG…   the program ends with exactly this code
//	fails CLASS PROGRAM ARG…  kimg refuses: exit 1, one line of this class, and the store, its temp files and $WORK are as before
//	usage PROGRAM ARG…        the same with exit 2: nothing was tried
//	needs NAME…               programs of other tools; the script is skipped, in CI fails, where one is missing
//	v1image DIRECTORY         makes a signed schema 1 image with every member there is, in the form of dir:
//
// and the conditions [root] and [rootless].
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: ".", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			l := newLab(e.T().(testing.TB))
			l.work = e.WorkDir
			e.Vars = append(e.Vars, l.env...)
			e.Values[labKey{}], e.Values[testKey{}] = l, e.T()
			// The store exists, with a base image.
			rootfs := filepath.Join(l.dir, "rootfs")
			for name, text := range map[string]string{
				"etc/passwd": "root:x:0:0::/root:/bin/sh\nwww:x:33:33::/:/bin/sh\n", "etc/group": "root:x:0:\nstaff:x:50:\n",
				"etc/hostname": "base\n", "srv/data/one": "1\n",
			} {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(rootfs, name)), 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(rootfs, name), []byte(text), 0o644); err != nil {
					return err
				}
			}
			if err := os.Symlink("/srv/data", filepath.Join(rootfs, "data")); err != nil {
				return err
			}
			if r := l.kimg("import", rootfs, "base:1"); r.code != 0 {
				return fmt.Errorf("importing the base: %s", r.err)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			"fails": func(ts *testscript.TestScript, neg bool, args []string) { fails(ts, 1, args[0], args[1:]) },
			"usage": func(ts *testscript.TestScript, neg bool, args []string) { fails(ts, 2, "invalid", args) },
			"needs": func(ts *testscript.TestScript, _ bool, names []string) {
				testenv.Need(ts.Value(testKey{}).(testing.TB), names...)
			},
			"v1image": func(ts *testscript.TestScript, _ bool, args []string) {
				img := testimage.NewV1(testimage.V1Options{Seed: 1, Layers: 2, Empty: 1, Signed: true})
				ts.Check(img.WriteDir(ts.MkAbs(args[0])))
			},
		},
		Condition: func(name string) (bool, error) {
			switch name {
			case "root":
				return os.Geteuid() == 0, nil
			case "rootless":
				return os.Geteuid() != 0, nil
			case "race": // the one build with cgo
				return testenv.Slower > 1, nil
			}
			return false, fmt.Errorf("unknown condition %s", name)
		},
	})
}

// What a script's command finds of its script.
type (
	labKey  struct{}
	testKey struct{}
)

func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit %d, want %d", code, want)
	}
}

func fails(ts *testscript.TestScript, code int, class string, args []string) {
	l := ts.Value(labKey{}).(*lab)
	work := &lab{dir: l.work}
	before, workBefore := l.snapshot(), work.snapshot()
	exits(ts, false, append([]string{strconv.Itoa(code)}, args...))
	r := result{out: ts.ReadFile("stdout"), err: ts.ReadFile("stderr"), code: code}
	if err := refused(r, code, class); err != nil {
		ts.Fatalf("%v", err)
	}
	if d := before.differs(l.snapshot()) + workBefore.differs(work.snapshot()); d != "" {
		ts.Fatalf("a refusal changed:\n%s", d)
	}
}
