package store_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg/store"
)

func TestFromNothingToAContainer(t *testing.T) {
	ts := newStore(t)
	ctx := t.Context()
	data := makeTar(t, file{name: "etc/", kind: '5'}, file{name: "etc/motd", content: "hello"}, file{name: "etc/same", kind: '1', link: "etc/motd"}, file{name: "run", kind: '2', link: "var/run"})
	l, err := ts.AddLayer(ctx, "", store.TarSource(bytes.NewReader(data)))
	if err != nil {
		t.Fatal(err)
	}
	if want := digest.FromBytes(data); l.UncompressedDigest != want || l.ID != want.Encoded() || l.UncompressedSize != int64(len(data)) {
		t.Errorf("layer %s, %s, %d bytes", l.ID, l.UncompressedDigest, l.UncompressedSize)
	}
	img, err := ts.PutImage(ctx, record(t, "first", l.ID, []string{"first"}, l.UncompressedDigest))
	if err != nil {
		t.Fatal(err)
	}
	if len(img.Names) != 1 || img.Names[0] != "localhost/first:latest" {
		t.Errorf("names %v", img.Names)
	}
	var out bytes.Buffer
	if err := ts.ExportLayer(ctx, l.ID, &out); err != nil || !bytes.Equal(out.Bytes(), data) {
		t.Errorf("export: %d bytes of %d, %v", out.Len(), len(data), err)
	}
	c, err := ts.NewContainer(ctx, img, store.ContainerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "first-working-container" || c.Foreign || c.Tool != store.ToolKimg || c.ImageID != img.ID {
		t.Errorf("container %+v", c)
	}
	err = c.WithMount(ctx, func(root string) error {
		if got, err := os.ReadFile(filepath.Join(root, "etc/same")); err != nil || string(got) != "hello" {
			t.Errorf("through the mount: %q, %v", got, err)
		}
		return os.WriteFile(filepath.Join(root, "new"), []byte("new"), 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	if path, n, err := c.Mounted(); path != "" || n != 0 || err != nil {
		t.Errorf("after WithMount: %q, %d, %v", path, n, err)
	}
	stack, err := c.Stack(ctx, store.StackOptions{})
	if err != nil || len(stack.Lowers) != 1 || len(stack.UIDs) != 0 {
		t.Fatalf("stack %+v, %v", stack, err)
	}
	if _, err := os.Stat(filepath.Join(stack.Upper, "new")); err != nil {
		t.Error(err)
	}
	problems, err := ts.Check(ctx)
	if err != nil || len(problems) > 0 {
		t.Errorf("check: %+v, %v", problems, err)
	}
	if err := c.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	d, err := ts.DeleteImage(ctx, "first", false)
	if err != nil || d.ID != img.ID || len(d.Layers) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
}
