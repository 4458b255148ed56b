//go:build linux

package untar_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
)

// gnu is what GNU tar makes of a tar.
func gnu(t testing.TB, data []byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd := exec.Command("tar", "-xpf", "-", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", dir)
	cmd.Stdin = bytes.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	return dir
}

// installed is a tree as a package manager leaves it: programs, libraries with links, set-id and capable programs, the same file
// under several names, directories of every mode.
func installed() (tree testimage.Tree) {
	add := func(n testimage.Node) { tree = append(tree, n) }
	for _, d := range []testimage.Node{{Path: "usr", Mode: 0o755}, {Path: "usr/bin", Mode: 0o755}, {Path: "usr/lib", Mode: 0o755}, {Path: "tmp", Mode: 0o1777}, {Path: "root", Mode: 0o700}, {Path: "var/mail", Mode: 0o2775, GID: 8}} {
		d.Type = 'd'
		add(d)
	}
	add(testimage.Node{Path: "usr/bin/su", Mode: 0o4755, Fill: 70000})
	add(testimage.Node{Path: "usr/bin/wall", Mode: 0o2755, GID: 5, Fill: 20000})
	add(testimage.Node{Path: "usr/bin/ping", Mode: 0o755, Fill: 60000, Xattrs: map[string]string{"security.capability": testimage.Capability(1<<13, 0)}})
	add(testimage.Node{Path: "lib", Type: 'l', Link: "usr/lib"})
	for i := range 60 {
		lib := fmt.Sprintf("usr/lib/lib%d.so.1.%d", i, i)
		add(testimage.Node{Path: lib, Mode: 0o644, Fill: int64(i * 3000)})
		add(testimage.Node{Path: fmt.Sprintf("usr/lib/lib%d.so.1", i), Type: 'l', Link: filepath.Base(lib)})
		add(testimage.Node{Path: fmt.Sprintf("usr/bin/tool%d", i), Type: 'h', Link: lib})
	}
	add(testimage.Node{Path: "dev/null", Type: 'c', Mode: 0o666, Major: 1, Minor: 3})
	add(testimage.Node{Path: "dev/loop0", Type: 'b', Mode: 0o660, GID: 6, Major: 7})
	add(testimage.Node{Path: "run/initctl", Type: 'p', Mode: 0o600})
	return here(tree)
}

// TestSameTreeAsGNUTar: what GNU tar packs in each of its formats, and unpacks, is unpacked to the same tree.
func TestSameTreeAsGNUTar(t *testing.T) {
	testenv.Need(t, "tar")
	trees := map[string]testimage.Tree{"installed": installed()}
	for seed := range uint64(2) {
		trees[fmt.Sprint("random ", seed)] = here(testimage.Random(seed+100, 150))
	}
	for name, tree := range trees {
		src := t.TempDir()
		must(t, tree.Write(src))
		for _, format := range []string{"gnu", "oldgnu", "posix", "ustar", "v7"} {
			t.Run(name+" "+format, func(t *testing.T) {
				cmd := exec.Command("tar", "--format="+format, "-cf", "-", "-C", src, ".")
				if format == "posix" {
					cmd.Args = append(cmd.Args, "--xattrs", "--xattrs-include=*")
				}
				var said bytes.Buffer
				cmd.Stderr = &said
				data, err := cmd.Output()
				if err != nil && format != "ustar" && format != "v7" { // which leave out what they cannot say
					t.Fatalf("%v\n%s", err, &said)
				}
				dir, _, err := unpack(t, data)
				if said.Len() > 0 && kimg.ClassOf(err) == kimg.ErrInvalid {
					return // a link to what was left out
				}
				must(t, err)
				compare(t, format, gnu(t, data), dir)
			})
		}
	}
}

// TestSameOrderAsGNUTar: members in any order, many of them several times, with links among them: later ones win as they do in GNU tar,
// or the tar is refused because it could not be given back.
func TestSameOrderAsGNUTar(t *testing.T) {
	testenv.Need(t, "tar")
	same := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		var in []testimage.Member
		name := func() string { return fmt.Sprintf("d%d/%c", r.IntN(3), 'a'+rune(r.IntN(6))) }
		files := []string{}
		for i := range 12 {
			switch n := name(); r.IntN(8) {
			case 0:
				in = append(in, file(n[:2]+"/", ""))
			case 1:
				in = append(in, link(tar.TypeSymlink, n, name()[3:]))
			case 2:
				if len(files) > 0 {
					in = append(in, link(tar.TypeLink, n, files[r.IntN(len(files))]))
				}
			default:
				in = append(in, file([]string{"", "./", "/"}[r.IntN(3)]+n, strings.Repeat(fmt.Sprint(i), r.IntN(700))))
				files = append(files, n)
			}
		}
		for i := range in {
			in[i].Header.ModTime = time.Unix(1e9+int64(i), 0)
		}
		data := testimage.PackTar(in...)
		dir, _, err := unpack(t, data)
		if err != nil {
			if c := kimg.ClassOf(err); c != kimg.ErrUnsupported && c != kimg.ErrInvalid {
				t.Errorf("seed %d: %v", seed, err)
			}
			continue
		}
		same++
		other := gnu(t, data)
		for _, root := range []string{dir, other} {
			for _, d := range []string{"d0", "d1", "d2"} { // those that no member made have the time of making
				_ = os.Chtimes(filepath.Join(root, d), time.Unix(1e9, 0), time.Unix(1e9, 0))
			}
		}
		compare(t, fmt.Sprint("seed ", seed), other, dir)
	}
	if same < 30 {
		t.Errorf("only %d of 60 were unpacked", same)
	}
}

// TestHostile: a tar that aims outside is refused with a class, or unpacked without leaving the directory.
func TestHostile(t *testing.T) {
	dir := t.TempDir()
	canary := filepath.Join(dir, "canary")
	must(t, os.WriteFile(canary, []byte("alive"), 0o600))
	before, err := testimage.Snapshot(dir)
	must(t, err)
	classes := map[kimg.Class]int{}
	for _, h := range testimage.HostileTars(canary) {
		t.Run(h.Name, func(t *testing.T) {
			_, _, err := unpack(t, h.Tar)
			class := kimg.ClassOf(err)
			classes[class]++
			if h.Refuse && err == nil || class == kimg.ErrInternal {
				t.Errorf("%v", err)
			}
			after, err := testimage.Snapshot(dir)
			must(t, err)
			for _, line := range testimage.Diff(before, after) {
				t.Errorf("outside: %s", line)
			}
		})
	}
	t.Log(classes)
}
