package rootfs_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containers/storage/pkg/archive"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/layerdiff/rootfs"
	"github.com/kimg/kimg/layerdiff/view"
	"github.com/kimg/kimg/tests/asroot"
)

func TestMain(m *testing.M) { asroot.Main(m) }

// generator writes random layers. Few names, so that layers often meet.
type generator struct {
	r     *rand.Rand
	files []tar.Header // of the layer at hand, to link to
	w     *tar.Writer
}

var names = []string{"a", "b", "p", strings.Repeat("long", 40), "\xff ü\n\"", "-", "a.b"}

// layer writes one layer.
func (g *generator) layer() []byte {
	var b bytes.Buffer
	g.w, g.files = tar.NewWriter(&b), nil
	g.dir("", 0)
	if err := g.w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func (g *generator) dir(prefix string, depth int) {
	for _, i := range g.r.Perm(len(names)) {
		path := prefix + names[i]
		switch k := g.r.IntN(12); {
		case k < 4:
		case k < 6:
			g.write(tar.Header{Name: prefix + ".wh." + names[i], Typeflag: tar.TypeReg, Mode: 0o600})
		case k < 9 && depth < 3:
			g.subdir(path+"/", names[i] == "p", depth)
		default:
			g.file(path)
			if g.r.IntN(8) == 0 { // a member that replaces one of its own layer
				g.file(path)
			}
		}
	}
}

// subdir writes a directory. Those named p have nothing but a time, so that they may as well be implied.
func (g *generator) subdir(path string, plain bool, depth int) {
	switch h := (tar.Header{Name: path, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: g.time()}); {
	case plain && g.r.IntN(2) == 0:
		g.file(path + "something")
	case plain:
		g.write(h)
	default:
		g.write(g.random(h))
	}
	if g.r.IntN(5) == 0 {
		g.write(tar.Header{Name: path + ".wh..wh..opq", Typeflag: tar.TypeReg})
	}
	g.dir(path, depth+1)
}

func (g *generator) file(path string) {
	h := g.random(tar.Header{Name: path, Typeflag: tar.TypeReg})
	g.files = slices.DeleteFunc(g.files, func(f tar.Header) bool { return f.Name == path })
	switch k := g.r.IntN(10); {
	case k < 5:
		h.Size = []int64{0, 1, 511, 512, 513, 70000, 140000}[g.r.IntN(7)]
		if g.r.IntN(6) == 0 {
			h.PAXRecords = map[string]string{"SCHILY.xattr.system.posix_acl_access": testimage.ACL(uint32(h.Mode), map[uint32]uint16{7: 5}, nil)}
		}
	case k < 7 && len(g.files) > 0:
		h = g.files[g.r.IntN(len(g.files))]
		if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeFifo {
			h.Typeflag, h.Linkname, h.Name, h.Size = tar.TypeLink, h.Name, path, 0
			g.write(h)
			return
		}
		fallthrough
	case k == 8:
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, "target of "+path, 0o777
		h.PAXRecords = nil
	default:
		h.Typeflag = tar.TypeFifo
		h.PAXRecords = nil
		if testenv.IsRoot() && g.r.IntN(2) == 0 {
			h.Typeflag, h.Devmajor, h.Devminor = "34"[g.r.IntN(2)], g.r.Int64N(200), 1+g.r.Int64N(300)
		}
	}
	g.write(h)
	g.files = append(g.files, h)
}

// random adds what every file has.
func (g *generator) random(h tar.Header) tar.Header {
	h.Mode, h.Uid, h.Gid, h.ModTime = g.r.Int64N(0o10000), g.r.IntN(3)*500, g.r.IntN(60000), g.time()
	if h.Typeflag == tar.TypeDir { // whoever implies a directory below one with setgid may let it inherit that
		h.Mode = h.Mode&^0o2000 | 0o700
	}
	switch g.r.IntN(5) {
	case 0:
		h.PAXRecords = map[string]string{"SCHILY.xattr.user.b": "v\x00\xff", "SCHILY.xattr.user.a": h.Name}
	case 1:
		h.Format = tar.FormatGNU
	}
	return h
}

func (g *generator) time() time.Time { return time.Unix(1+g.r.Int64N(1<<31), g.r.Int64N(1e9)) }

func (g *generator) write(h tar.Header) {
	if len(h.PAXRecords) > 0 {
		h.Format = tar.FormatPAX
	}
	if err := g.w.WriteHeader(&h); err != nil {
		panic(err)
	}
	noise := make([]byte, h.Size)
	for i := range noise {
		noise[i] = byte(g.r.Uint32())
	}
	if _, err := g.w.Write(noise); err != nil {
		panic(err)
	}
}

// mounted unpacks layers as containers/storage does and mounts them.
func mounted(t testing.TB, layers [][]byte) string {
	dir := t.TempDir()
	var lowers []string
	for i, l := range layers {
		lower := filepath.Join(dir, fmt.Sprint("l", i))
		o := &archive.TarOptions{WhiteoutFormat: archive.OverlayWhiteoutFormat}
		if err := os.Mkdir(lower, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := archive.UntarUncompressed(bytes.NewReader(l), lower, o); err != nil {
			t.Fatal(err)
		}
		lowers = append([]string{lower}, lowers...)
	}
	merged, bottom := filepath.Join(dir, "merged"), filepath.Join(dir, "bottom")
	for _, d := range []string{merged, bottom} { // overlay wants two directories at least
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := "lowerdir=" + strings.Join(append(lowers, bottom), ":")
	if !testenv.IsRoot() {
		options += ",userxattr"
	}
	if err := unix.Mount("overlay", merged, "overlay", unix.MS_RDONLY, options); err != nil {
		testenv.Skip(t, "cannot mount an overlay: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(merged, unix.MNT_DETACH) })
	return merged
}

// What the layers say is what the kernel shows, and is what one layer made of that says.
func TestLayersAreTheTree(t *testing.T) {
	for seed := range uint64(30) {
		g := &generator{r: rand.New(rand.NewPCG(seed, 0))}
		layers := make([][]byte, 1+seed%5)
		for i := range layers {
			layers[i] = g.layer()
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) { compare(t, layers) })
	}
}

func compare(t *testing.T, layers [][]byte) {
	ctx := context.Background()
	want := proof(t, rootfs.Options{}, layers...)
	merged := mounted(t, layers)
	got, err := rootfs.Tree(ctx, merged, rootfs.Options{Implied: want.Implied})
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != want.Digest || got.Entries != want.Entries || !slices.Equal(got.Implied, want.Implied) {
		t.Errorf("layers: %+v\ntree: %+v", want, got)
	}
	// What cp complains about is that overlayfs lists deletions which delete nothing.
	flat := filepath.Join(t.TempDir(), "flat")
	_ = exec.Command("cp", "-a", merged, flat).Run()
	if got, err := rootfs.Tree(ctx, flat, rootfs.Options{Implied: want.Implied}); err != nil || got.Digest != want.Digest {
		t.Errorf("as one directory: %+v, %v", got, err)
	}
	compareTree(t, flat)
	var fromLayers, fromTree bytes.Buffer
	blob := write(t, &fromLayers, layers...)
	for r := tar.NewReader(bytes.NewReader(fromLayers.Bytes())); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		if name := strings.TrimSuffix(h.Name, "/"); slices.Contains(want.Implied, name) { // everybody unpacks these with another time
			if err := os.Chtimes(filepath.Join(flat, name), h.ModTime, h.ModTime); err != nil {
				t.Fatal(err)
			}
		}
	}
	again, err := layerdiff.Write(ctx, &fromTree, view.Stack{Upper: flat, XattrPrefix: view.TrustedPrefix}, layerdiff.Options{})
	if err != nil || !bytes.Equal(fromLayers.Bytes(), fromTree.Bytes()) || blob.DiffID != again.DiffID || blob.Size != again.Size || blob.Entries != again.Entries {
		t.Errorf("written from layers %+v, from the tree %+v, %v", blob, again, err)
	}
}

// write writes what layers show.
func write(t testing.TB, w io.Writer, layers ...[]byte) layerdiff.Blob {
	t.Helper()
	temp, err := os.Create(filepath.Join(t.TempDir(), "temp"))
	if err != nil {
		t.Fatal(err)
	}
	defer temp.Close()
	blob, err := rootfs.Write(context.Background(), w, temp, open(layers...), rootfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

// compareTree compares a directory with the layer that is made of it.
func compareTree(t *testing.T, dir string) {
	t.Helper()
	var l bytes.Buffer
	if _, err := layerdiff.Write(context.Background(), &l, view.Stack{Upper: dir, XattrPrefix: view.TrustedPrefix}, layerdiff.Options{}); err != nil {
		t.Fatal(err)
	}
	got, err := rootfs.Tree(context.Background(), dir, rootfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if want := proof(t, rootfs.Options{}, l.Bytes()); got.Digest != want.Digest {
		t.Errorf("layer: %+v, tree: %+v", want, got)
	}
}
