//go:build interop

package interop

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/tests/lab"
)

const (
	checkLayers = 6
	checkFiles  = 120
)

// checker is a program that reads every file of the image it comes with, below a directory.
var checker = fmt.Sprintf(`package main

import (
	"fmt"
	"os"
	"strings"
)

func main() {
	for l := range %d {
		for i := range %d {
			name := fmt.Sprintf("/srv/l%%d/f%%d", l, i)
			data, err := os.ReadFile(os.Args[1] + name)
			if err != nil || string(data) != strings.Repeat(name, 300) {
				fmt.Fprintln(os.Stderr, "NOT WHOLE:", name, len(data), err)
				os.Exit(9)
			}
		}
	}
	fmt.Println("whole")
}
`, checkLayers, checkFiles)

// checked is an image with a checker, in an OCI layout under the name app:1.
func checked(t *testing.T, program string) (layout string) {
	t.Helper()
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	member := func(name, content string, mode int64) testimage.Member {
		return testimage.Member{Header: tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(content)), ModTime: time.Unix(1e9, 0)}, Content: content}
	}
	tars := [][]byte{testimage.PackTar(member("check", string(data), 0o755))}
	for l := range checkLayers {
		var files []testimage.Member
		for i := range checkFiles {
			name := fmt.Sprintf("srv/l%d/f%d", l, i)
			files = append(files, member(name, strings.Repeat("/"+name, 300), 0o644))
		}
		tars = append(tars, testimage.PackTar(files...))
	}
	layout = filepath.Join(lab.TempDir(t), "layout")
	if err := testimage.NewImage(7, testimage.ImageOptions{Tars: tars, Gzip: true}).WriteOCI(layout, "app:1"); err != nil {
		t.Fatal(err)
	}
	return layout
}

// TestLoadBesidePeers loads an image and removes it, again and again, while podman pulls and removes the same layers, podman runs
// containers of them and kimg mounts some. Whatever comes to be at all is whole, and so is the store in the end. It takes 25 seconds, and
// on a slow machine until each of them was lucky once.
func TestLoadBesidePeers(t *testing.T) {
	testenv.Root(t) // runc in a namespace needs more than these machines give
	testenv.Need(t, "podman", "runc", "skopeo", "go")
	program := filepath.Join(program(t, "check", checker), "check")
	layout, s, registry := checked(t, program), lab.NewStore(t, ""), lab.Registry(t)+"/app:1"
	lab.Skopeo(t, "copy", "-q", "--dest-tls-verify=false", "oci:"+layout+":app:1", "docker://"+registry)
	podman := func(args ...string) []string { return s.PeerArgs("podman", args...) }
	begin := time.Now()
	var wg sync.WaitGroup
	var good, bad [4]atomic.Int64
	goesOn := func() bool {
		took, lucky := time.Since(begin), 0
		for kind := range good {
			lucky += int(min(good[kind].Load(), 1))
		}
		return !t.Failed() && (took < 25*time.Second || took < 5*time.Minute && lucky < len(good))
	}
	// try runs a command, which may lose a race, but never finds half an image.
	try := func(kind int, argv ...string) bool {
		r := lab.Run(t, s.Env, argv...)
		switch {
		case strings.Contains(r.Stderr, "NOT WHOLE"):
			t.Errorf("%s: %s", strings.Join(argv, " "), r.Stderr)
		case r.Code == 0:
			good[kind].Add(1)
			return true
		}
		bad[kind].Add(1)
		if kind == 0 && !strings.HasPrefix(r.Stderr, "kimg: busy: ") { // three times podman has swept what was half made
			t.Errorf("%s: exit %d: %s", strings.Join(argv, " "), r.Code, r.Stderr)
		}
		return false
	}
	loop := func(body func(round int)) {
		wg.Go(func() {
			for round := 0; goesOn(); round++ {
				body(round)
			}
		})
	}
	loop(func(int) {
		if try(0, s.Args("load", "-q", "-i", layout)...) {
			s.Try("rmi", "localhost/app:1")
		}
	})
	loop(func(int) {
		if try(1, podman("pull", "-q", "--tls-verify=false", registry)...) {
			lab.Run(t, s.Env, podman("rmi", registry)...)
		}
	})
	loop(func(round int) {
		name := []string{"localhost/app:1", registry}[round%2]
		try(2, podman("--runtime", "runc", "run", "--rm", "--pull=never", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", name, "/check", "")...)
	})
	loop(func(round int) {
		name := fmt.Sprintf("mounted%d", round)
		if s.Try("from", "--name", name, []string{"localhost/app:1", registry}[round%2]).Code == 0 {
			try(3, s.Args("mount", name, "--", "sh", "-c", program+` "$KIMG_ROOT"`)...)
			if r := s.Try("rm", name); r.Code != 0 {
				t.Errorf("rm: %s", r.Stderr)
			}
		}
	})
	wg.Wait()
	for kind, what := range []string{"kimg load", "podman pull", "podman run", "kimg mount"} {
		t.Logf("%s: %d done, %d not", what, good[kind].Load(), bad[kind].Load())
		if good[kind].Load() == 0 {
			t.Errorf("%s never came to its end", what)
		}
	}
	s.Kimg("load", "-q", "-i", layout)
	s.Kimg("from", "--name", "last", "localhost/app:1")
	s.Kimg("mount", "last", "--", "sh", "-c", program+` "$KIMG_ROOT"`)
	s.CheckClean()
	s.Sound("in the end")
}
