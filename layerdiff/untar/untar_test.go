//go:build linux

package untar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/layerdiff/untar"
	"github.com/kimg/kimg/tests/asroot"
)

func TestMain(m *testing.M) {
	asroot.Enter()
	unix.Umask(0o022)
	os.Exit(asroot.Run(m))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func options(t testing.TB) untar.Options {
	return untar.Options{
		UserNS: !testenv.IsRoot(), Take: func(int64) error { return nil }, Log: slog.New(slog.DiscardHandler),
		Record: func() (*os.File, error) { return os.CreateTemp(t.TempDir(), "record") },
	}
}

// unpack unpacks a tar and holds the result against the tar: its digest, its size, and that the record gives it back.
func unpack(t testing.TB, data []byte) (dir string, r untar.Result, err error) {
	t.Helper()
	dir = t.TempDir()
	r, err = untar.Unpack(t.Context(), dir, io.NopCloser(bytes.NewReader(data)), options(t))
	if err != nil {
		return dir, r, err
	}
	defer r.Record.Close()
	if r.DiffID != digest.FromBytes(data) || r.Size != int64(len(data)) {
		t.Errorf("%s, %d bytes; it is %s, %d bytes", r.DiffID, r.Size, digest.FromBytes(data), len(data))
	}
	_, err = r.Record.Seek(0, io.SeekStart)
	must(t, err)
	back := asm.NewOutputTarStream(getter(dir), storage.NewJSONUnpacker(r.Record))
	defer back.Close()
	if again, err := io.ReadAll(back); err != nil || !bytes.Equal(again, data) {
		t.Errorf("the record gives back %d bytes (%v), not the %d of the tar", len(again), err, len(data))
	}
	return dir, r, nil
}

// getter finds files as a process does whose root is the directory.
type getter string

func (g getter) Get(name string) (io.ReadCloser, error) {
	root, err := atfs.OpenRoot(string(g))
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, name, &unix.OpenHow{Resolve: unix.RESOLVE_IN_ROOT})
	return os.NewFile(uintptr(fd), name), err
}

// here is a tree as it can be made here: an ordinary user has pipes for devices and not every id.
func here(tree testimage.Tree) testimage.Tree {
	for i := range tree {
		n := &tree[i]
		if testenv.IsRoot() {
			continue
		}
		if n.Type == 'b' || n.Type == 'c' {
			n.Type = 'p'
		}
		n.UID, n.GID = n.UID%65000, n.GID%65000
	}
	return tree
}

// pack is the tar of a tree as archive/tar writes it. Attributes are PAX records, as engines write them.
func pack(t testing.TB, dir string) []byte {
	items, err := testimage.Snapshot(dir)
	must(t, err)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		path := filepath.Join(dir, i.Path)
		info, err := os.Lstat(path)
		must(t, err)
		link := ""
		if i.Type == 'l' {
			link = i.Data
		}
		h, err := tar.FileInfoHeader(info, link)
		must(t, err)
		h.Name, h.Uid, h.Gid, h.Uname, h.Gname, h.Format = i.Path, int(i.UID), int(i.GID), "", "", tar.FormatPAX
		if i.Type == 'd' {
			h.Name += "/"
		}
		h.ModTime = time.Unix(i.Sec, i.Nsec)
		h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
		h.PAXRecords = map[string]string{}
		for _, name := range []string{"user.note", "user.empty", "system.posix_acl_access", "system.posix_acl_default", "security.capability"} {
			buf := make([]byte, 4096)
			if n, err := unix.Lgetxattr(path, name, buf); err == nil {
				h.PAXRecords["SCHILY.xattr."+name] = string(buf[:n])
			}
		}
		if i.Group != "" && i.Group != i.Path {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, i.Group, 0
		}
		must(t, w.WriteHeader(h))
		if h.Typeflag == tar.TypeReg {
			data, err := os.ReadFile(path)
			must(t, err)
			_, err = w.Write(data)
			must(t, err)
		}
	}
	must(t, w.Close())
	return b.Bytes()
}

func compare(t testing.TB, what, a, b string) {
	t.Helper()
	before, err := testimage.Snapshot(a)
	must(t, err)
	after, err := testimage.Snapshot(b)
	must(t, err)
	for _, line := range testimage.Diff(before, after) {
		t.Errorf("%s: %s", what, line)
	}
}

// TestRandomTrees: a tree that becomes a tar and is unpacked is the same tree, with every attribute, and what GNU tar
// makes of the tar.
func TestRandomTrees(t *testing.T) {
	testenv.Need(t, "tar")
	for seed := range uint64(12) {
		src := t.TempDir()
		must(t, here(testimage.Random(seed, 10+10*int(seed))).Write(src))
		data := pack(t, src)
		dir, r, err := unpack(t, data)
		must(t, err)
		compare(t, "against the tree", src, dir)
		compare(t, "against GNU tar", gnu(t, data), dir)
		items, err := testimage.Snapshot(src)
		must(t, err)
		uids, gids := map[uint32]bool{}, map[uint32]bool{}
		for _, i := range items {
			uids[i.UID], gids[i.GID] = true, true
		}
		if !slices.Equal(r.UIDs, slices.Sorted(maps.Keys(uids))) || !slices.Equal(r.GIDs, slices.Sorted(maps.Keys(gids))) {
			t.Errorf("owners %v %v", r.UIDs, r.GIDs)
		}
	}
}

// TestGNUTar unpacks what GNU tar writes in its own formats, and the record is the one that tar-split writes.
func TestGNUTar(t *testing.T) {
	testenv.Need(t, "tar")
	src := t.TempDir()
	tree := here(testimage.Random(7, 120))
	kinds := map[string]byte{}
	for i := range tree {
		kinds[tree[i].Path] = tree[i].Type
		if tree[i].Type == 'h' && kinds[tree[i].Link] != 'f' { // GNU tar does not see these
			tree[i] = testimage.Node{Path: tree[i].Path, Type: 'f'}
		}
		tree[i].Xattrs, tree[i].Time = nil, time.Unix(1234567890, 0)
		tree[i].Path = strings.ReplaceAll(tree[i].Path, "\n", "-")
		tree[i].Link = strings.ReplaceAll(tree[i].Link, "\n", "-")
	}
	must(t, tree.Write(src))
	for _, format := range []string{"gnu", "posix", "oldgnu"} {
		cmd := exec.Command("tar", "--format="+format, "-cf", "-", "-C", src, ".")
		data, err := cmd.Output()
		must(t, err)
		dir, r, err := unpack(t, data)
		must(t, err)
		compare(t, format, src, dir)
		var want bytes.Buffer
		in, done, err := asm.NewInputTarStreamWithDone(bytes.NewReader(data), storage.NewJSONPacker(&want), nil)
		must(t, err)
		_, err = io.Copy(io.Discard, in)
		must(t, errors.Join(err, <-done))
		got, err := os.ReadFile(r.Record.Name())
		must(t, err)
		// The padding behind the end may be cut into pieces in another way.
		members := want.Bytes()[:bytes.LastIndex(want.Bytes(), []byte(`{"type":1,`))]
		if !bytes.HasPrefix(got, members) {
			t.Errorf("%s: the record is not tar-split's", format)
		}
	}
}

// file is a member; its type is that of a file, or a directory when the name ends in a slash.
func file(name, content string) testimage.Member {
	kind := byte(tar.TypeReg)
	if strings.HasSuffix(name, "/") {
		kind = tar.TypeDir
	}
	return testimage.Member{Header: tar.Header{Name: name, Typeflag: kind, Mode: 0o750, Size: int64(len(content)), ModTime: time.Unix(1e9, 0)}, Content: content}
}

func link(kind byte, name, target string) testimage.Member {
	return testimage.Member{Header: tar.Header{Name: name, Typeflag: kind, Linkname: target, Mode: 0o777}}
}

// list is a tree in short: "f=content", "d/", "l->target", "!gone" for a whiteout, "d/ opaque".
func list(t *testing.T, dir string) string {
	items, err := testimage.Snapshot(dir)
	must(t, err)
	var out []string
	for _, i := range items {
		switch i.Type {
		case 'd':
			i.Path += "/"
			if strings.Contains(i.Xattrs, "overlay.opaque") {
				i.Path += " opaque"
			}
		case 'l':
			i.Path += "->" + i.Data
		case 'c':
			i.Path = "!" + i.Path
		case 'f':
			data, err := os.ReadFile(filepath.Join(dir, i.Path))
			must(t, err)
			i.Path += "=" + string(data)
			if i.Group != "" {
				i.Path += "(" + i.Group + ")"
			}
		}
		out = append(out, i.Path)
	}
	return strings.Join(out, " ")
}

// TestMembers is about what members do to each other: names that come twice, marks, links on the way, directories nobody
// made. Each tar is given back byte for byte, or refused.
func TestMembers(t *testing.T) {
	type members = []testimage.Member
	for name, c := range map[string]struct {
		in   members
		want string // or a class
	}{
		"later file wins":          {members{file("f", "one"), file("g", "x"), file("f", "two!"), file("./f", "three")}, "f=three g=x"},
		"empty, then content":      {members{file("f", ""), file("f", "two")}, "f=two"},
		"content, then empty":      {members{file("f", "one"), file("f", "")}, "f="},
		"content, then a link":     {members{file("f", "one"), link(tar.TypeSymlink, "f", "x")}, "f->x"},
		"link, then content":       {members{link(tar.TypeSymlink, "f", "/x"), file("f", "two")}, "f=two"},
		"directory twice":          {members{file("d/", ""), file("d/a", "1"), file("d/", ""), file("d/b", "2")}, "d/ d/a=1 d/b=2"},
		"file over a directory":    {members{file("d/", ""), file("d", "1")}, "d=1"},
		"over what is in it":       {members{file("d/f", "1"), file("d", "1")}, "unsupported"},
		"directory over a file":    {members{file("d", "1"), file("d/", ""), file("d/f", "2")}, "d/ d/f=2"},
		"hard link":                {members{file("f", "1"), link(tar.TypeLink, "d/g", "/f")}, "d/ d/g=1(d/g) f=1(d/g)"},
		"hard link twice":          {members{file("f", "1"), link(tar.TypeLink, "g", "f"), link(tar.TypeLink, "g", "./f"), link(tar.TypeLink, "f", "f")}, "f=1(f) g=1(f)"},
		"hard link replaced":       {members{file("f", "1"), link(tar.TypeLink, "g", "f"), file("g", "22")}, "f=1 g=22"},
		"hard-linked replaced":     {members{file("f", "1"), link(tar.TypeLink, "g", "f"), file("f", "22")}, "f=22 g=1"},
		"hard link to nothing":     {members{link(tar.TypeLink, "g", "f")}, "invalid"},
		"hard link to a directory": {members{file("d/", ""), link(tar.TypeLink, "g", "d")}, "invalid"},
		"hard link above":          {members{file("f", "1"), link(tar.TypeLink, "g", "../../f")}, "f=1(f) g=1(f)"},
		"missing parents":          {members{file("a/b/c", "1")}, "a/ a/b/ a/b/c=1"},
		"absolute":                 {members{file("/a/", ""), file("//a/b", "1")}, "a/ a/b=1"},
		"above":                    {members{file("a/../../b", "1")}, "unsafe"},
		"dots inside":              {members{file("a/", ""), file("a/../b", "1"), file("/../c", "2")}, "a/ b=1 c=2"},
		"through a link":           {members{file("usr/lib/", ""), link(tar.TypeSymlink, "lib", "usr/lib"), file("lib/f", "1"), file("lib/sub/g", "2")}, "lib->usr/lib usr/ usr/lib/ usr/lib/f=1 usr/lib/sub/ usr/lib/sub/g=2"},
		"absolute link inside":     {members{file("run/", ""), link(tar.TypeSymlink, "var/run", "/run"), file("var/run/f", "1")}, "run/ run/f=1 var/ var/run->/run"},
		"twice through a link":     {members{file("d/f", "1"), link(tar.TypeSymlink, "l", "d"), file("l/f", "2")}, "unsupported"},
		"through a dangling link":  {members{link(tar.TypeSymlink, "l", "/nowhere"), file("l/f", "2")}, "invalid"},
		"through a file":           {members{file("f", "1"), file("f/g", "2")}, "invalid"},
		"directory over a link":    {members{file("d/", ""), link(tar.TypeSymlink, "l", "d"), file("l/", ""), file("l/f", "1")}, "d/ l/ l/f=1"},
		"marks":                    {members{file("d/.wh.x", ""), file(".wh.y", ""), file("d/.wh..wh..opq", ""), file(".wh..wh.plnk", "")}, "d/ opaque !d/x !y"},
		"mark, then a directory":   {members{file(".wh.d", ""), file("d/", ""), file("d/f", "1")}, "d/ opaque d/f=1"},
		"mark, then below":         {members{file(".wh.d", ""), file("d/f", "1")}, "d/ opaque d/f=1"},
		"directory, then mark":     {members{file("d/f", "1"), file(".wh.d", "")}, "d/ opaque d/f=1"},
		"mark, then a file":        {members{file(".wh.f", ""), file("f", "1")}, "f=1"},
		"file, then mark":          {members{file("f", "1"), file(".wh.f", "")}, "f=1"},
		"mark twice":               {members{file(".wh.f", ""), file(".wh.f", "")}, "!f"},
		"marks below a mark":       {members{file(".wh.d", ""), file("d/.wh.f", ""), file("d/e/.wh.f", "")}, "!d"},
		"mark of dot-dot":          {members{file(".wh...", "")}, "unsafe"},
		"mark with content":        {members{file(".wh.f", "x")}, "unsupported"},
		"root":                     {members{file("./", ""), file("f", "1")}, "f=1"},
		"root file":                {members{file(".", "x")}, "invalid"},
		"global header":            {members{{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "x"}}}, file("f", "1")}, "f=1"},
		"nothing":                  {nil, ""},
		"unknown type":             {members{link('Z', "f", "")}, "unsupported"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _, err := unpack(t, testimage.PackTar(c.in...))
			got := ""
			if err == nil {
				got = list(t, dir)
			} else {
				got = string(kimg.ClassOf(err))
			}
			if got != c.want {
				t.Errorf("got %q (%v), want %q", got, err, c.want)
			}
		})
	}
}

// TestKeepMarks: a mount program reads deletions as files.
func TestKeepMarks(t *testing.T) {
	o, dir := options(t), t.TempDir()
	o.KeepMarks = true
	data := testimage.PackTar(file("d/.wh..wh..opq", ""), file(".wh.f", ""))
	_, err := untar.Unpack(t.Context(), dir, io.NopCloser(bytes.NewReader(data)), o)
	if got := list(t, dir); err != nil || got != ".wh.f= d/ d/.wh..wh..opq=" {
		t.Error(got, err)
	}
}

// TestHoles: a long run of zeros takes no room.
func TestHoles(t *testing.T) {
	dir, _, err := unpack(t, testimage.PackTar(file("f", strings.Repeat("\x00", 3<<20)), file("g", "x"+strings.Repeat("\x00", 3<<20)+"y")))
	must(t, err)
	for name, size := range map[string]int64{"f": 3 << 20, "g": 3<<20 + 2} {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(dir, name), &st))
		if st.Size != size || st.Blocks*512 > 1<<20 {
			t.Errorf("%s: %d bytes on %d", name, st.Size, st.Blocks*512)
		}
	}
}

// TestBounded: what a tar may cost is bounded before it is spent.
func TestBounded(t *testing.T) {
	zeros := testimage.PackTar()
	headers := unended(testimage.Member{Header: tar.Header{Name: "f", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"KIMG.x": strings.Repeat("x", 30000)}}})
	for name, r := range map[string]io.Reader{
		"behind the end":    io.MultiReader(bytes.NewReader(zeros), io.LimitReader(endless{}, 1<<40)),
		"endless headers":   &repeat{block: headers[:len(headers)-512]},
		"names of folders":  &repeat{block: unended(file(strings.Repeat(strings.Repeat("d", 249)+"/", 16), ""))},
		"bytes, as counted": io.MultiReader(bytes.NewReader(testimage.PackTar(file("f", strings.Repeat("x", 3<<20)))[:3<<20]), endless{}),
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			var n int64
			o.Take = func(more int64) error {
				if n += more; n > 2<<30 {
					return kimg.Errorf(kimg.ErrLimit, "", "too much")
				}
				return nil
			}
			if name == "bytes, as counted" {
				o.Take = func(more int64) error { return kimg.Errorf(kimg.ErrLimit, "", "too much") }
			}
			if _, err := untar.Unpack(t.Context(), t.TempDir(), io.NopCloser(r), o); !errors.Is(err, kimg.ErrLimit) {
				t.Errorf("%v", err)
			}
		})
	}
}

// unended is a tar without its end.
func unended(m ...testimage.Member) []byte {
	data := testimage.PackTar(m...)
	return data[:len(data)-1024]
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// repeat gives a block for ever.
type repeat struct {
	block []byte
	at    int
}

func (r *repeat) Read(p []byte) (int, error) {
	n := copy(p, r.block[r.at:])
	r.at = (r.at + n) % len(r.block)
	return n, nil
}

// TestCancelled: neither a stream that never ends nor one that says nothing holds up whoever cancels.
func TestCancelled(t *testing.T) {
	silent, w := io.Pipe()
	defer w.Close()
	for _, r := range []io.ReadCloser{silent, io.NopCloser(io.MultiReader(bytes.NewReader(testimage.PackTar(file("f", "x"))[:1024]), io.LimitReader(endless{}, 1<<50)))} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		start := time.Now()
		_, err := untar.Unpack(ctx, t.TempDir(), r, options(t))
		if err == nil || time.Since(start) > 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		cancel()
	}
}

// FuzzUnpack: whatever comes, nothing outside is touched, nothing panics, and what is accepted is given back.
func FuzzUnpack(f *testing.F) {
	canary := filepath.Join(f.TempDir(), "canary")
	must(f, os.WriteFile(canary, []byte("alive"), 0o600))
	for _, h := range testimage.HostileTars(canary) {
		f.Add(h.Tar)
	}
	f.Add(testimage.PackTar(file("f", "one"), file("f", "two"), file(".wh.d", ""), file("d/f", "x")))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, err := unpack(t, data)
		if err != nil && kimg.ClassOf(err) == kimg.ErrInternal {
			t.Errorf("class internal: %v", err)
		}
		if now, err := os.ReadFile(canary); err != nil || string(now) != "alive" {
			t.Fatalf("the file outside has %q (%v)", now, err)
		}
	})
}

// BenchmarkUnpack is many small files, and one large one.
func BenchmarkUnpack(b *testing.B) {
	var small []testimage.Member
	for i := range 5000 {
		small = append(small, file(fmt.Sprintf("d%d/f%d", i/50, i), strings.Repeat("content ", 1+i%1000)))
	}
	for name, data := range map[string][]byte{
		"small": testimage.PackTar(small...), "large": testimage.PackTar(file("f", strings.Repeat("0123456789abcdef", 16<<20))),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				dir := b.TempDir()
				_, err := untar.Unpack(b.Context(), dir, io.NopCloser(bytes.NewReader(data)), options(b))
				must(b, err)
				b.StopTimer()
				must(b, os.RemoveAll(dir))
				b.StartTimer()
			}
		})
	}
}
