package layerdiff_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containers/storage/pkg/archive"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"
	"pgregory.net/rapid"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/layerdiff/view"
	"github.com/kimg/kimg/tests/asroot"
)

func TestMain(m *testing.M) { asroot.Main(m) }

// prefix is that of overlay's attributes in a store of whoever runs the tests.
func prefix() string {
	if testenv.IsRoot() {
		return view.TrustedPrefix
	}
	return view.UserPrefix
}

// here is a tree as it can be made here: an ordinary user has pipes for devices, not every id, and his own overlay's attributes.
func here(tree testimage.Tree) testimage.Tree {
	if testenv.IsRoot() {
		return tree
	}
	tree = slices.Clone(tree)
	for i := range tree {
		n := &tree[i]
		if whiteout := n.Type == 'c' && n.Major == 0 && n.Minor == 0; n.Type == 'b' || n.Type == 'c' && !whiteout {
			n.Type = 'p'
		}
		n.UID, n.GID = n.UID%65000, n.GID%65000
		attrs := map[string]string{}
		for name, value := range n.Xattrs {
			if mark, ok := strings.CutPrefix(name, view.TrustedPrefix); ok {
				name = view.UserPrefix + mark
			}
			if !strings.HasPrefix(name, "trusted.") {
				attrs[name] = value
			}
		}
		n.Xattrs = attrs
	}
	return tree
}

// upper makes a tree and returns a stack of it alone.
func upper(t testing.TB, tree testimage.Tree, lowers ...string) view.Stack {
	t.Helper()
	dir := tempDir(t)
	if err := here(tree).Write(dir); err != nil {
		t.Fatal(err)
	}
	return view.Stack{Upper: dir, Lowers: lowers, XattrPrefix: prefix()}
}

// tempDir returns a directory that any tree can be deleted from.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "layerdiff-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// layer writes a stack and checks what must hold for every layer: the description fits the bytes.
func layer(t testing.TB, stack view.Stack, o layerdiff.Options) ([]byte, layerdiff.Blob) {
	t.Helper()
	var buf bytes.Buffer
	blob, err := layerdiff.Write(context.Background(), &buf, stack, o)
	if err != nil {
		t.Fatal(err)
	}
	if blob.Size != int64(buf.Len()) || blob.DiffID.String() != fmt.Sprintf("sha256:%x", sha256.Sum256(buf.Bytes())) {
		t.Fatalf("%d bytes, description %+v", buf.Len(), blob)
	}
	if n := len(members(t, buf.Bytes())); n != blob.Entries {
		t.Fatalf("%d members, description says %d", n, blob.Entries)
	}
	return buf.Bytes(), blob
}

// staged stages a stack, checks that it is the layer that Write writes and that its tar-split record is the one tar-split
// makes of the tar and gives the tar back.
func staged(t testing.TB, stack view.Stack, o layerdiff.Options) (string, layerdiff.Blob) {
	t.Helper()
	data, want := layer(t, stack, o)
	dir := tempDir(t)
	var record bytes.Buffer
	blob, err := layerdiff.Stage(context.Background(), dir, &record, stack, o)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(blob) != fmt.Sprint(want) {
		t.Fatalf("staged %+v, written %+v", blob, want)
	}
	var wantRecord bytes.Buffer
	in, done, err := asm.NewInputTarStreamWithDone(bytes.NewReader(data), storage.NewJSONPacker(&wantRecord), nil)
	must(t, err)
	_, err = io.Copy(io.Discard, in)
	must(t, err, <-done)
	if !bytes.Equal(record.Bytes(), wantRecord.Bytes()) {
		t.Errorf("tar-split record differs:\n%.2000s\nwant\n%.2000s", record.Bytes(), wantRecord.Bytes())
	}
	out := asm.NewOutputTarStream(storage.NewPathFileGetter(dir), storage.NewJSONUnpacker(&record))
	defer out.Close()
	again, err := io.ReadAll(out)
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("tar-split gives back another tar (%v)", err)
	}
	return dir, blob
}

type member struct {
	tar.Header
	data string
}

func members(t testing.TB, data []byte) []member {
	t.Helper()
	var out []member
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, member{*h, string(content)})
	}
}

func names(t testing.TB, data []byte) string {
	var out []string
	for _, m := range members(t, data) {
		out = append(out, m.Name)
	}
	return strings.Join(out, " ")
}

// snapshot describes a directory; whole cuts times to seconds, as a tar does.
func snapshot(t testing.TB, dir string, whole bool) []testimage.Item {
	t.Helper()
	items, err := testimage.Snapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range items {
		if whole {
			items[i].Nsec = 0
		}
	}
	return items
}

func untar(t testing.TB, data []byte) string {
	t.Helper()
	dir := tempDir(t)
	err := archive.Unpack(bytes.NewReader(data), dir, &archive.TarOptions{WhiteoutFormat: archive.OverlayWhiteoutFormat})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func same(t testing.TB, what string, a, b []testimage.Item) {
	t.Helper()
	if diff := testimage.Diff(a, b); len(diff) > 0 {
		t.Fatalf("%s:\n%s", what, strings.Join(diff[:min(len(diff), 10)], "\n"))
	}
}

// Whatever is in the upper directory: staged, and written and unpacked by another program, it is the same tree again.
func TestRandomTreesRoundTrip(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			tree := testimage.Random(seed, 20+int(seed)*12)
			unpack := seed%2 == 0
			if unpack { // the library hands a directory's default access list down to what it unpacks into it
				for i := range tree {
					delete(tree[i].Xattrs, "system.posix_acl_default")
				}
			}
			stack := upper(t, tree)
			o := layerdiff.Options{Jobs: int(seed % 5), Links: seed%3 == 0}
			want := snapshot(t, stack.Upper, false)
			dir, blob := staged(t, stack, o)
			if blob.Empty || len(blob.LeftOut) > 0 {
				t.Fatalf("%+v", blob)
			}
			same(t, "staged", want, snapshot(t, dir, false))
			if !unpack {
				return
			}
			data, _ := layer(t, stack, o)
			same(t, "unpacked", snapshot(t, stack.Upper, true), snapshot(t, untar(t, data), true))
		})
	}
}

// Without whiteouts, access lists and opaque directories a layer is byte for byte what containers/storage makes. The library
// of podman's module leaves out, with a line in the log, what lies in a directory whose name is not UTF-8.
func TestDigestEqualsLibrary(t *testing.T) {
	narrow := strings.HasPrefix(reflect.TypeFor[archive.TarOptions]().PkgPath(), "go.podman.io/")
	rapid.Check(t, func(rt *rapid.T) {
		tree := testimage.Random(rapid.Uint64().Draw(rt, "seed"), rapid.IntRange(1, 60).Draw(rt, "nodes"))
		for i := range tree {
			delete(tree[i].Xattrs, "system.posix_acl_access")
			delete(tree[i].Xattrs, "system.posix_acl_default")
			if narrow {
				tree[i].Path, tree[i].Link = strings.ToValidUTF8(tree[i].Path, "?"), strings.ToValidUTF8(tree[i].Link, "?")
			}
		}
		stack := upper(t, tree)
		data, _ := layer(t, stack, layerdiff.Options{})
		r, err := archive.TarWithOptions(stack.Upper, &archive.TarOptions{WhiteoutFormat: archive.OverlayWhiteoutFormat})
		if err != nil {
			rt.Fatal(err)
		}
		defer r.Close()
		want, err := io.ReadAll(r)
		if err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(data, want) {
			rt.Fatalf("%q\nwant %q", names(t, data), names(t, want))
		}
	})
}

// The bytes of a layer are a promise: equal changes keep their digest from one version to the next.
func TestGolden(t *testing.T) {
	testenv.Root(t)
	for _, c := range []struct {
		name, digest string
		tree         testimage.Tree
	}{
		{"empty", "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef", nil},
		{"file", "sha256:f16bcc8bd470481ff053558b619372a8a05d7bde8513f999ecd9d7372d5ade19", testimage.Tree{{Path: "f", Mode: 0o644, Data: "hello\n"}}},
		{"every kind", "sha256:b518bbcfd7f40c09b0d63c9e92b912fb3354290e7a5c8f6db86202caa90f5072", testimage.Tree{
			{Path: "d", Type: 'd', Mode: 0o1777, Time: time.Unix(1600000000, 999)},
			{Path: "d/hard", Mode: 0o4755, UID: 1000, GID: 1001, Data: "content"},
			{Path: "d/link", Type: 'h', Link: "d/hard"},
			{Path: "null", Type: 'c', Mode: 0o666, Major: 1, Minor: 3},
			{Path: "disk", Type: 'b', Mode: 0o660, Major: 8, Minor: 1},
			{Path: "pipe", Type: 'p', Mode: 0o600},
			{Path: "sym", Type: 'l', Link: "d/hard"},
			{Path: "long/" + strings.Repeat("n", 200), Mode: 0o600},
			{Path: "raw\xff", Mode: 0o600, UID: 3000000},
			{Path: "attr", Mode: 0o640, Xattrs: map[string]string{
				"user.x": "\x00", "trusted.t": "v", "security.capability": testimage.Capability(1<<10, 0),
				"system.posix_acl_access": testimage.ACL(0o640, map[uint32]uint16{7: 6}, nil)}},
			{Path: "old", Mode: 0o600, Time: time.Unix(-10, 500)},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			stack := upper(t, c.tree)
			if c.tree != nil { // made on the way, so without a time of its own
				_ = os.Chtimes(filepath.Join(stack.Upper, "long"), time.Time{}, time.Unix(1, 0))
			}
			_, blob := staged(t, stack, layerdiff.Options{})
			if blob.DiffID.String() != c.digest || blob.Empty != (c.tree == nil) {
				t.Errorf("%+v", blob)
			}
		})
	}
}
