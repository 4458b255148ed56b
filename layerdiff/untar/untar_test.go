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
	"github.com/kimg/kimg/layerdiff/rootfs"
	"github.com/kimg/kimg/layerdiff/untar"
	"github.com/kimg/kimg/tests/asroot"
)

func TestMain(m *testing.M) { asroot.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// take lets no file with holes be larger than the tests need.
func take(n int64) error {
	if n > 128<<20 {
		return kimg.Errorf(kimg.ErrLimit, "", "too much")
	}
	return nil
}

func options(t testing.TB) untar.Options {
	return untar.Options{
		UserNS: !testenv.IsRoot(), Take: take, Log: slog.New(slog.DiscardHandler),
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

// sparseTar is what GNU tar makes of files with holes in one of its forms, and the directory it read.
func sparseTar(t *testing.T, form string) (data []byte, src string) {
	testenv.Need(t, "tar")
	src = t.TempDir()
	for name, at := range map[string][]int64{
		"begin": {1 << 20}, "middle": {0, 8 << 20}, "end": {0, -1}, "all": {-1}, "many": {0, 1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 21, 1 << 22},
		"odd": {5000, 100_001, 300_003}, strings.Repeat("long", 40): {0, 1 << 20}, "large": {0, 40 << 20}, "much": {0, 1 << 20, 2 << 20}, "full": {0},
	} {
		f, err := os.Create(filepath.Join(src, name))
		must(t, err)
		must(t, f.Truncate(3<<20))
		for _, n := range at {
			if data := strings.Repeat(name, 2000/len(name)+1); n >= 0 {
				if name == "much" {
					data = strings.Repeat(data, 200)
				}
				_, err = f.WriteAt([]byte(data), n)
				must(t, err)
			}
		}
		must(t, f.Close())
		must(t, os.Chtimes(f.Name(), time.Time{}, time.Unix(1e9, 0)))
	}
	must(t, os.Link(filepath.Join(src, "odd"), filepath.Join(src, "zlink")))
	data, err := exec.Command("tar", append(strings.Fields(form), "-S", "-cf", "-", "-C", src, ".")...).Output()
	must(t, err)
	return data, src
}

var sparseForms = []string{"--format=gnu", "--format=posix --sparse-version=0.0", "--format=posix --sparse-version=0.1", "--format=posix --sparse-version=1.0"}

// TestSparse unpacks every form of sparse member that GNU tar writes: the files are those that it unpacks itself, and take no
// more room; the helper sees that the record gives the tar back.
func TestSparse(t *testing.T) {
	for _, form := range sparseForms {
		t.Run(form, func(t *testing.T) {
			data, src := sparseTar(t, form)
			if len(data) > 4<<20 {
				t.Fatalf("a tar of %d bytes has no holes", len(data))
			}
			dir, _, err := unpack(t, data)
			must(t, err)
			compare(t, "against the tree", src, dir)
			gnu := t.TempDir()
			cmd := exec.Command("tar", "-xpf", "-", "--numeric-owner", "-C", gnu)
			cmd.Stdin = bytes.NewReader(data)
			must(t, cmd.Run())
			compare(t, "against GNU tar", gnu, dir)
			plain, err := exec.Command("tar", "--format=posix", "-cf", "-", "-C", src, ".").Output()
			must(t, err)
			if proof(t, data) != proof(t, plain) {
				t.Error("the proof of the layer is not that of one without holes")
			}
			names, err := os.ReadDir(gnu)
			must(t, err)
			for _, e := range names {
				var want, got unix.Stat_t
				must(t, unix.Lstat(filepath.Join(gnu, e.Name()), &want))
				must(t, unix.Lstat(filepath.Join(dir, e.Name()), &got))
				if got.Blocks > want.Blocks+16 {
					t.Errorf("%s: %d blocks, %d of GNU tar's", e.Name(), got.Blocks, want.Blocks)
				}
			}
			if err := untar.Copy(t.Context(), io.Discard, io.NopCloser(bytes.NewReader(data)), options(t)); !errors.Is(err, kimg.ErrUnsupported) {
				t.Errorf("copied: %v", err)
			}
			// Members that replace each other, and all of it cut short.
			_, _, err = unpack(t, slices.Concat(unended(file("odd", "first"), file("zlink", "x")), data))
			must(t, err)
			twice, _, err := unpack(t, slices.Concat(data[:len(data)-endOf(data)], testimage.PackTar(file("many", "last"))))
			must(t, err)
			if text, err := os.ReadFile(filepath.Join(twice, "many")); err != nil || string(text) != "last" {
				t.Errorf("%.20q (%v)", text, err)
			}
			if _, _, err := unpack(t, data[:len(data)/2]); !errors.Is(err, kimg.ErrIntegrity) {
				t.Errorf("cut short: %v", err)
			}
		})
	}
}

func proof(t *testing.T, layer []byte) digest.Digest {
	open := func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil }
	p, err := rootfs.Layers(t.Context(), []rootfs.Opener{open}, rootfs.Options{})
	must(t, err)
	return p.Digest
}

// endOf is how many zeros a tar ends with, in whole blocks.
func endOf(data []byte) int {
	return (len(data) - len(bytes.TrimRight(data, "\x00"))) &^ 511
}

// sparse is a tar with one sparse member.
func sparse(size, data int, pieces string) []byte {
	m := file("f", strings.Repeat("x", data))
	m.Header.PAXRecords = map[string]string{"KIM.sparse.major": "0", "KIM.sparse.minor": "1", "KIM.sparse.size": fmt.Sprint(size), "KIM.sparse.map": pieces,
		"KIM.sparse.numblocks": fmt.Sprint((strings.Count(pieces, ",") + 1) / 2)}
	return bytes.ReplaceAll(testimage.PackTar(m), []byte("KIM.sparse."), []byte("GNU.sparse.")) // archive/tar does not write these
}

// TestSparseBounded: holes count in full, and what the record would hold of such files is bounded; a map that does not fit is
// no tar.
func TestSparseBounded(t *testing.T) {
	for name, c := range map[string]struct {
		data []byte
		want kimg.Class
	}{
		"holes":        {sparse(1<<50, 5, "0,5"), kimg.ErrLimit},
		"content":      {sparse(100<<20, 65<<20, fmt.Sprint("0,", 65<<20)), kimg.ErrUnsupported},
		"missing data": {sparse(100, 5, "0,50"), kimg.ErrInvalid},
		"more data":    {sparse(100, 50, "0,5"), kimg.ErrInvalid},
		"overlap":      {sparse(100, 10, "0,5,3,5"), kimg.ErrInvalid},
		"as it should": {sparse(100, 10, "0,5,50,5"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := untar.Unpack(t.Context(), t.TempDir(), io.NopCloser(bytes.NewReader(c.data)), options(t))
			if kimg.ClassOf(err) != c.want {
				t.Errorf("%v", err)
			}
			if err == nil {
				r.Record.Close()
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	o := options(t)
	o.Take = nil
	_, err := untar.Unpack(ctx, t.TempDir(), io.NopCloser(bytes.NewReader(sparse(1<<43, 5, "0,5"))), o)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
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
	f.Add(sparse(100_000, 10, "0,5,50000,5"))
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
