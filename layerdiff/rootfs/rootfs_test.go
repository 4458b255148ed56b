package rootfs_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/layerdiff/rootfs"
)

func open(layers ...[]byte) (all []rootfs.Opener) {
	for _, l := range layers {
		all = append(all, func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(l)), nil })
	}
	return all
}

func proof(t testing.TB, o rootfs.Options, layers ...[]byte) rootfs.Proof {
	t.Helper()
	p, err := rootfs.Layers(context.Background(), open(layers...), o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var then = time.Unix(1700000000, 0)

// layer writes a tar in few words: "f etc/a text", "d etc/", "l way etc/a", "h other etc/a", "c null 1,3", "p pipe". A
// header changes the member before it.
func layer(members ...any) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, m := range members {
		line, ok := m.(string)
		if !ok {
			continue
		}
		f := append(strings.SplitN(line, " ", 3), "")
		h := tar.Header{Name: f[1], ModTime: then, Mode: 0o644, Uid: 1000, Gid: 50, Format: tar.FormatPAX}
		content := ""
		switch f[0] {
		case "f":
			h.Typeflag, content = tar.TypeReg, f[2]
			h.Size = int64(len(content))
		case "d":
			h.Typeflag = tar.TypeDir
		case "l":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f[2]
		case "h":
			h.Typeflag, h.Linkname = tar.TypeLink, f[2]
		case "p":
			h.Typeflag = tar.TypeFifo
		case "c":
			h.Typeflag = tar.TypeChar
			if _, err := fmt.Sscanf(f[2], "%d,%d", &h.Devmajor, &h.Devminor); err != nil {
				panic(err)
			}
		default:
			h.Typeflag = f[0][0]
		}
		if i+1 < len(members) {
			if change, ok := members[i+1].(func(*tar.Header)); ok {
				change(&h)
			}
		}
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func xattr(name, value string) func(*tar.Header) {
	return func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr." + name: value} }
}

// The digest is what the package comment says, computed here by hand.
func TestDefinition(t *testing.T) {
	got := proof(t, rootfs.Options{}, layer("d ./etc/", "f etc/a text", xattr("user.x", "y"), "h b etc/a", "l way etc/a", "f new/x "))
	field := func(fields ...string) (s string) {
		for _, f := range fields {
			s += fmt.Sprintf("%d:%s,", len(f), f)
		}
		return s
	}
	hash := func(s string) string { h := sha256.Sum256([]byte(s)); return string(h[:]) }
	file := hash(field("f", "0644", "1000", "50", "1700000000", hash("text"), "1", "user.x", "y"))
	want := hash(field("b", file, "") +
		field("etc", hash(field("d", "0644", "1000", "50", "1700000000", "", "0")), "") +
		field("etc/a", file, "b") +
		field("new", hash(field("d", "0755", "0", "0", "-", "", "0")), "") +
		field("new/x", hash(field("f", "0644", "1000", "50", "1700000000", hash(""), "0")), "") +
		field("way", hash(field("l", "0777", "1000", "50", "1700000000", "etc/a", "0")), ""))
	if got.Digest.String() != fmt.Sprintf("sha256:%x", want) || got.Entries != 6 || len(got.Implied) != 1 {
		t.Errorf("%+v", got)
	}
}

// Everything that counts changes the digest, and what does not count does not.
func TestWhatCounts(t *testing.T) {
	base := []any{"d etc/", "f etc/a text", xattr("user.x", "y"), "h etc/b etc/a", "l way etc/a", "c null 1,3", "p pipe", "f other text", "d empty/"}
	change := func(at int, with ...any) []byte {
		all := append([]any{}, base[:at]...)
		return layer(append(append(all, with...), base[at+1:]...)...)
	}
	edit := func(f func(h *tar.Header)) []byte { return change(7, "f other text", f) }
	want := proof(t, rootfs.Options{}, layer(base...)).Digest
	for name, l := range map[string][]byte{
		"mode":         edit(func(h *tar.Header) { h.Mode ^= 0o1 }),
		"sticky":       edit(func(h *tar.Header) { h.Mode |= 0o1000 }),
		"user":         edit(func(h *tar.Header) { h.Uid++ }),
		"group":        edit(func(h *tar.Header) { h.Gid++ }),
		"second":       edit(func(h *tar.Header) { h.ModTime = then.Add(time.Second) }),
		"before":       edit(func(h *tar.Header) { h.ModTime = then.Add(-time.Nanosecond) }),
		"attribute":    edit(xattr("user.x", "y")),
		"name":         edit(func(h *tar.Header) { h.Name = "othes" }),
		"bit":          change(7, "f other texu"),
		"shorter":      change(7, "f other tex"),
		"link target":  change(4, "l way etc/b"),
		"device":       change(5, "c null 1,5"),
		"type":         change(6, "f pipe "),
		"value":        change(2, xattr("user.x", "z")),
		"attr name":    change(2, xattr("user.z", "y")),
		"no link":      change(3, "f etc/b text", xattr("user.x", "y")),
		"another link": change(3, "h etc/b etc/a", "h etc/c etc/a"),
		"no directory": change(8),
		"dir's time":   change(8, "d empty/", func(h *tar.Header) { h.ModTime = then.Add(time.Second) }),
	} {
		if got := proof(t, rootfs.Options{}, l).Digest; got == want {
			t.Errorf("%s: the digest is the same", name)
		}
	}
	for name, layers := range map[string][][]byte{
		"order":         {layer(append([]any{"f other text"}, append(base[:7:7], base[8])...)...)},
		"fraction":      {edit(func(h *tar.Header) { h.ModTime = then.Add(999 * time.Millisecond) })},
		"GNU":           {edit(func(h *tar.Header) { h.Format = tar.FormatGNU })},
		"USTAR":         {edit(func(h *tar.Header) { h.Format = tar.FormatUSTAR })},
		"names":         {edit(func(h *tar.Header) { h.Uname, h.Gname = "user", "group" })},
		"host's":        {edit(xattr("security.selinux", "label"))},
		"libarchive":    {edit(func(h *tar.Header) { h.PAXRecords = map[string]string{"LIBARCHIVE.xattr.user.x": "eQ"} })},
		"link mode":     {change(4, "l way etc/a", func(h *tar.Header) { h.Mode = 0 })},
		"link's own":    {change(3, "h etc/b etc/a", func(h *tar.Header) { h.Mode, h.Uid, h.ModTime = 0, 7, then.Add(time.Hour) })},
		"other name":    {layer(append([]any{"d etc/", "f etc/b text", xattr("user.x", "y"), "h etc/a etc/b"}, base[4:]...)...)},
		"root":          {layer(append([]any{"d ./"}, base...)...)},
		"absolute":      {edit(func(h *tar.Header) { h.Name = "/./other" })},
		"two layers":    {layer(base[:5]...), layer(base[5:]...)},
		"empty layers":  {layer(), layer(base...), layer(), nil},
		"replaced":      {layer("f other x", "f etc y", "d null/", "f null/x y"), layer(base...)},
		"same again":    {layer(base...), layer(base...)},
		"global header": {layer(append([]any{"g x", func(h *tar.Header) { *h = tar.Header{Typeflag: 'g', PAXRecords: map[string]string{"comment": "x"}} }}, base...)...)},
		"aufs":          {layer(append([]any{"f .wh..wh.aufs ", "d .wh..wh.orph/", "f .wh..wh.plnk/1.2 x"}, base...)...)},
	} {
		if got := proof(t, rootfs.Options{}, layers...).Digest; got != want {
			t.Errorf("%s: the digest differs", name)
		}
	}
}

// What layers show, as the package comment defines it: left and right are the same tree.
func TestMerging(t *testing.T) {
	group := []any{"f a 1", "h b a", "h c a"}
	for name, c := range map[string]struct{ layers, same [][]byte }{
		"whiteout":                {[][]byte{layer("f a 1", "f b 2"), layer("f .wh.a ")}, [][]byte{layer("f b 2")}},
		"whiteout of a tree":      {[][]byte{layer("d a/", "d a/b/", "f a/b/c 1", "f d 1"), layer("f .wh.a ")}, [][]byte{layer("f d 1")}},
		"whiteout of nothing":     {[][]byte{layer("f a 1"), layer("f .wh.b ", "f x/.wh.y ", "f a/.wh.y ")}, [][]byte{layer("f a 1")}},
		"whiteout after":          {[][]byte{layer("d a/", "f a/x 1"), layer("d a/", "f a/y 2", "f .wh.a ")}, [][]byte{layer("d a/", "f a/y 2")}},
		"whiteout before":         {[][]byte{layer("d a/", "f a/x 1"), layer("f .wh.a ", "d a/", "f a/y 2")}, [][]byte{layer("d a/", "f a/y 2")}},
		"whiteout of implied":     {[][]byte{layer("d a/", "f a/x 1"), layer("f a/y 2", "f .wh.a ")}, [][]byte{layer("f a/y 2")}},
		"implied after whiteout":  {[][]byte{layer("d a/", "f a/x 1"), layer("f .wh.a ", "f a/y 2")}, [][]byte{layer("f a/y 2")}},
		"two whiteouts":           {[][]byte{layer("d a/", "f a/x 1", "f b 1"), layer("f .wh.a ", "f a/.wh.x ")}, [][]byte{layer("f b 1")}},
		"two whiteouts, reversed": {[][]byte{layer("d a/", "f a/x 1", "f b 1"), layer("f a/.wh.x ", "f .wh.a ")}, [][]byte{layer("f b 1")}},
		"of a hidden name":        {[][]byte{layer("f .a 1", "f b 2"), layer("f .wh..a ")}, [][]byte{layer("f b 2")}},
		"opaque":                  {[][]byte{layer("d a/", "d a/b/", "f a/b/c 1"), layer("f a/d 2", "f a/.wh..wh..opq ", "d a/", "f a/b/e 3")}, [][]byte{layer("d a/", "f a/d 2", "f a/b/e 3")}},
		"opaque root":             {[][]byte{layer("f a 1"), layer("f b 2", "f .wh..wh..opq ", "f c 3")}, [][]byte{layer("f b 2", "f c 3")}},
		"opaque only below":       {[][]byte{layer("d a/", "f a/b 1", "f c 1"), layer("d a/", "f a/.wh..wh..opq ")}, [][]byte{layer("d a/", "f c 1")}},
		"a file for a tree":       {[][]byte{layer("d a/", "f a/b 1"), layer("f a 2")}, [][]byte{layer("f a 2")}},
		"a tree for a file":       {[][]byte{layer("f a 2"), layer("f a/b 1")}, [][]byte{layer("f a/b 1")}},
		"a tree for a link":       {[][]byte{layer("l a b", "d b/"), layer("f a/c 1")}, [][]byte{layer("d b/", "f a/c 1")}},
		"replaced by itself":      {[][]byte{layer("l a b", "d a/", "f a/c 1")}, [][]byte{layer("d a/", "f a/c 1")}},
		"a directory's metadata":  {[][]byte{layer("d a/", xattr("user.x", "y"), "f a/b 1"), layer("d a/")}, [][]byte{layer("d a/", "f a/b 1")}},
		"one name of three":       {[][]byte{layer(group...), layer("f a 2")}, [][]byte{layer("f a 2", "f b 1", "h c b")}},
		"one name left":           {[][]byte{layer("f a 1", "h b a"), layer("f .wh.a ")}, [][]byte{layer("f b 1")}},
		"copied up":               {[][]byte{layer(group...), layer("h d a", "h e a")}, [][]byte{layer("f a 1", "h d a", "h e a", "f b 1", "h c b")}},
		"copied up and away":      {[][]byte{layer(group...), layer("h d a", "f .wh.a ")}, [][]byte{layer("f d 1", "f b 1", "h c b")}},
		"same content":            {[][]byte{layer(group...), layer("f a 1")}, [][]byte{layer("f a 1", "f b 1", "h c b")}},
		"link to a link":          {[][]byte{layer("l a x", "h b a", "h c b")}, [][]byte{layer("l c x", "h a c", "h b c")}},
	} {
		got, want := proof(t, rootfs.Options{}, c.layers...), proof(t, rootfs.Options{}, c.same...)
		if got.Digest != want.Digest || got.Entries != want.Entries {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	implied := proof(t, rootfs.Options{}, layer("d a/", "f a/b 1"), layer("f a/b 1"))
	if other := proof(t, rootfs.Options{}, layer("d a/", func(h *tar.Header) { h.ModTime = then.Add(time.Hour) }), layer("f a/b 1")); other.Digest != implied.Digest {
		t.Error("the time of an implied directory counts")
	}
	if other := proof(t, rootfs.Options{}, layer("d a/", func(h *tar.Header) { h.Mode = 0o700 }), layer("f a/b 1")); other.Digest == implied.Digest {
		t.Error("the mode of a directory that a layer above implies does not count")
	}
}

func TestRefused(t *testing.T) {
	good := layer("f a 1", "f b 2")
	for name, c := range map[string]struct {
		class  kimg.Class
		layers [][]byte
	}{
		"cut short":          {kimg.ErrIntegrity, [][]byte{good[:512]}},
		"no tar":             {kimg.ErrInvalid, [][]byte{bytes.Repeat([]byte("x"), 1024)}},
		"dot-dot":            {kimg.ErrUnsafe, [][]byte{layer("f a/../b 1")}},
		"link to dot-dot":    {kimg.ErrUnsafe, [][]byte{layer("h a ../b")}},
		"long component":     {kimg.ErrLimit, [][]byte{layer("f " + strings.Repeat("x", 256) + " 1")}},
		"link to nothing":    {kimg.ErrInvalid, [][]byte{layer("h a not-there")}},
		"link to removed":    {kimg.ErrInvalid, [][]byte{layer("f a 1"), layer("f .wh.a ", "h b a")}},
		"link to a dir":      {kimg.ErrInvalid, [][]byte{layer("d a/", "h b a")}},
		"link to the root":   {kimg.ErrInvalid, [][]byte{layer("h b /")}},
		"link to itself":     {kimg.ErrInvalid, [][]byte{layer("f a 1", "h a a")}},
		"link to what goes":  {kimg.ErrInvalid, [][]byte{layer("d a/", "f a/b 1", "h a a/b")}},
		"link through":       {kimg.ErrInvalid, [][]byte{layer("d a/", "f a/b 1", "l c a", "h d c/b")}},
		"below a symlink":    {kimg.ErrUnsafe, [][]byte{layer("d a/", "l b a", "f b/c 1")}},
		"below a file":       {kimg.ErrUnsafe, [][]byte{layer("f a 1", "f a/b 1")}},
		"below a whiteout":   {kimg.ErrInvalid, [][]byte{layer("f .wh.a/b 1")}},
		"whiteout of itself": {kimg.ErrUnsafe, [][]byte{layer("f a/.wh.. ")}},
		"whiteout above":     {kimg.ErrUnsafe, [][]byte{layer("f a/.wh... ")}},
		"whiteout device":    {kimg.ErrUnsafe, [][]byte{layer("c a 0,0")}},
		"overlay attribute":  {kimg.ErrUnsafe, [][]byte{layer("d a/", xattr("trusted.overlay.opaque", "y"))}},
		"type":               {kimg.ErrUnsupported, [][]byte{layer("Z a 1")}},
		"root is a file":     {kimg.ErrInvalid, [][]byte{layer("l . b")}},
	} {
		_, err := rootfs.Layers(context.Background(), open(append([][]byte{good}, c.layers...)...), rootfs.Options{})
		if !errors.Is(err, c.class) || !strings.Contains(err.Error(), "layer ") || len(kimg.Line(err)) > 600 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, h := range testimage.HostileTars("/canary") {
		_, err := rootfs.Layers(context.Background(), open(h.Tar), rootfs.Options{})
		if h.Refuse && err == nil || err != nil && errors.Is(err, kimg.ErrInternal) {
			t.Errorf("%s: %v", h.Name, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := rootfs.Layers(ctx, open(good), rootfs.Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := rootfs.Tree(ctx, t.TempDir(), rootfs.Options{}); err != nil {
		t.Error(err) // nothing in it to be cancelled at
	}
}

// closer counts, and remembers whether it was read to its end.
type closer struct {
	io.Reader
	closed, ended bool
}

func (c *closer) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.ended = c.ended || err == io.EOF
	return n, err
}

func (c *closer) Close() error { c.closed = true; return errors.New("closing fails") }

func TestStreamsAreReadAndClosed(t *testing.T) {
	c := &closer{Reader: io.MultiReader(bytes.NewReader(layer("f a 1")), strings.NewReader("behind the end"))}
	_, err := rootfs.Layers(context.Background(), []rootfs.Opener{func(context.Context) (io.ReadCloser, error) { return c, nil }}, rootfs.Options{})
	if !c.closed || !c.ended || err == nil || !strings.Contains(err.Error(), "closing fails") {
		t.Error(c.closed, c.ended, err)
	}
}

// A tree that holds the ids of the host is the same tree in the eyes of its container.
func TestIDMaps(t *testing.T) {
	testenv.Root(t)
	tree := func(shift int, root uint32) testimage.Tree {
		n := uint32(shift)
		return testimage.Tree{
			{Path: "d", Type: 'd', Mode: 0o755, UID: shift, GID: shift},
			{Path: "d/f", Mode: 0o644, UID: shift + 7, GID: shift + 8, Data: "x", Xattrs: map[string]string{
				"system.posix_acl_access": testimage.ACL(0o644, map[uint32]uint16{n + 9: 7}, map[uint32]uint16{n + 10: 4}),
				"security.capability":     testimage.Capability(1<<10, root),
			}},
			{Path: "l", Type: 'l', Link: "d", UID: shift + 1, GID: shift + 1},
		}
	}
	var digests []string
	m := layerdiff.IDMap{{Container: 0, Host: 100000, Size: 65536}}
	for _, c := range []struct {
		tree testimage.Tree
		o    rootfs.Options
	}{{tree(0, 0), rootfs.Options{}}, {tree(100000, 100000), rootfs.Options{UIDs: m, GIDs: m}}} {
		dir := t.TempDir()
		if err := c.tree.Write(dir); err != nil {
			t.Fatal(err)
		}
		p, err := rootfs.Tree(context.Background(), dir, c.o)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, p.Digest.String())
	}
	if digests[0] != digests[1] {
		t.Error(digests)
	}
	dir := t.TempDir()
	if err := tree(0, 0).Write(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := rootfs.Tree(context.Background(), dir, rootfs.Options{UIDs: m, GIDs: m}); !errors.Is(err, kimg.ErrUnsupported) {
		t.Error(err)
	}
}

// Trees of every kind of file and attribute: the digest of the tree is that of the layer made of it.
func TestRandomTrees(t *testing.T) {
	testenv.Root(t)
	for seed := range uint64(8) {
		dir := t.TempDir()
		if err := testimage.Random(seed, 150).Write(dir); err != nil {
			t.Fatal(err)
		}
		compareTree(t, dir)
	}
}

func TestTreeRefuses(t *testing.T) {
	ctx := context.Background()
	if _, err := rootfs.Tree(ctx, filepath.Join(t.TempDir(), "none"), rootfs.Options{}); !errors.Is(err, kimg.ErrNotFound) {
		t.Error(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := rootfs.Tree(ctx, dir, rootfs.Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if testenv.IsRoot() {
		dir := t.TempDir()
		if err := (testimage.Tree{{Path: "gone", Type: 'c'}}).Write(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := rootfs.Tree(context.Background(), dir, rootfs.Options{}); !errors.Is(err, kimg.ErrInvalid) {
			t.Error(err)
		}
	}
}

// The limit of names counts what the tree has, not what it had.
func TestMaxNames(t *testing.T) {
	members := []any{"d d/"}
	for i := range 99 {
		members = append(members, fmt.Sprintf("f d/%d x", i))
	}
	full := layer(members...)
	for _, c := range []struct {
		good   bool
		layers [][]byte
	}{{true, [][]byte{full}}, {true, [][]byte{full, layer("f .wh.d ")}}, {true, [][]byte{full, layer("f d x", "f e x"), full[:0], full}}, {false, [][]byte{full, layer("f e x")}}} {
		_, err := rootfs.Layers(context.Background(), open(c.layers...), rootfs.Options{MaxNames: 101 - map[bool]int{false: 1, true: 0}[c.good]})
		if c.good && err != nil || !c.good && !errors.Is(err, kimg.ErrLimit) {
			t.Error(c.good, err)
		}
	}
}
