package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// bigTar is more than what lies in pipes and buffers between a stream and the files that are made of it.
func bigTar(t testing.TB) []byte {
	var all []file
	for n := range 10_000 {
		all = append(all, file{name: fmt.Sprintf("file-%05d", n), content: "x"})
	}
	return makeTar(t, all...)
}

// deadly is a context that ends its process when it is asked for its error while the library unpacks bigTar.
type deadly struct {
	context.Context
	files string // pattern
}

func (d deadly) Err() error {
	if made, _ := filepath.Glob(d.files); len(made) > 0 {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
	return d.Context.Err()
}

// A layer of vfs is made by the library. Killed in the middle of that, it is gone when the store is opened again, and the
// same layer can be made.
func TestKilledWhileTheLibraryUnpacks(t *testing.T) {
	ts := prepareOf(t, "vfs")
	before := ts.shape(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envChild+"=big", envRoot+"="+filepath.Dir(ts.root), envDriver+"=vfs")
	alive, inherited, err := os.Pipe()
	must(t, err)
	defer alive.Close()
	cmd.ExtraFiles = []*os.File{inherited}
	err = cmd.Run()
	must(t, inherited.Close())
	if cmd.ProcessState == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Fatal("it was not killed:", err)
	}
	_, err = io.Copy(io.Discard, alive) // until what it has started has ended, too
	must(t, err)
	if records, err := os.ReadFile(filepath.Join(ts.root, "vfs-layers", "layers.json")); err != nil || !bytes.Contains(records, []byte(`"incomplete":true`)) {
		t.Fatalf("no layer was begun: %v", err)
	}
	ts.Store = ts.open(t)
	if got := ts.shape(t); got != before {
		t.Errorf("left behind:\n%s", diff(before, got))
	}
	problems, err := ts.Check(t.Context())
	if err != nil || len(problems) > 0 {
		t.Errorf("check: %+v, %v", problems, err)
	}
	l, err := ts.AddLayer(t.Context(), "", store.TarSource(bytes.NewReader(bigTar(t))))
	must(t, err)
	must(t, ts.ExportLayer(t.Context(), l.ID, io.Discard))
}

// What a source of a vfs layer does wrong leaves nothing, as in other stores; the same content is one layer.
func TestLayersOfVFS(t *testing.T) {
	ts := prepareOf(t, "vfs")
	ctx := t.Context()
	before := ts.inventory(t)
	for name, src := range map[string]store.LayerSource{
		"cut short": store.TarSource(bytes.NewReader(makeTar(t, file{name: "x", content: strings.Repeat("x", 5000)})[:3000])),
		"unsafe":    store.TarSource(bytes.NewReader(makeTar(t, file{name: "x", pax: map[string]string{"SCHILY.xattr.trusted.overlay.opaque": "y"}}))),
		"fails":     failingSource{},
		"unpacking": store.TarSource(bytes.NewReader(makeTar(t, file{name: "x", kind: '1', link: "nothing"}))),
	} {
		if _, err := ts.AddLayer(ctx, "", src); err == nil {
			t.Errorf("%s: no error", name)
		} else if class := kimg.ClassOf(err); class != map[string]kimg.Class{"cut short": kimg.ErrIntegrity, "unpacking": kimg.ErrIntegrity, "unsafe": kimg.ErrUnsafe, "fails": kimg.ErrNoSpace}[name] {
			t.Errorf("%s: %v", name, err)
		}
		if got := ts.inventory(t); got != before {
			t.Errorf("%s left:\n%s", name, diff(before, got))
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := ts.AddLayer(cancelled, "", store.TarSource(bytes.NewReader(makeTar(t, file{name: "x"})))); kimg.ClassOf(err) != kimg.ErrInterrupted {
		t.Error(err)
	}
	data := makeTar(t, file{name: "same", content: "same", uid: 4})
	l, err := ts.AddLayer(ctx, "", store.TarSource(bytes.NewReader(data)))
	must(t, err)
	if want := digest.FromBytes(data); l.ID != want.Encoded() || l.UncompressedDigest != want || l.UncompressedSize != int64(len(data)) {
		t.Errorf("%+v", l)
	}
	again, err := ts.AddLayer(ctx, "", store.TarSource(bytes.NewReader(data)))
	if err != nil || again.ID != l.ID || !again.Created.Equal(l.Created) {
		t.Errorf("%+v, %v", again, err)
	}
	// What nobody uses and is wrong is replaced, not reused.
	must(t, os.WriteFile(filepath.Join(ts.root, "vfs/dir", l.ID, "same"), []byte("else"), 0o600))
	again, err = ts.AddLayer(ctx, "", store.TarSource(bytes.NewReader(data)))
	if err != nil || again.Created.Equal(l.Created) {
		t.Errorf("%+v, %v", again, err)
	}
	var out bytes.Buffer
	if err := ts.ExportLayer(ctx, l.ID, &out); err != nil || !bytes.Equal(out.Bytes(), data) {
		t.Errorf("export: %d bytes, %v", out.Len(), err)
	}
	// The change fails after the layer was made.
	before = ts.inventory(t)
	boom := errors.New("boom")
	err = ts.Change(ctx, "test", func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.StageLayer(ctx, l.ID, store.TarSource(bytes.NewReader(makeTar(t, file{name: "above"})))); err != nil {
			return err
		}
		tx.Record("last", func(context.Context) error { return boom })
		return nil
	})
	if got := ts.inventory(t); !errors.Is(err, boom) || got != before {
		t.Errorf("%v:\n%s", err, diff(before, got))
	}
}

// failingSource is a container on a full disk.
type failingSource struct{ emptySource }

func (failingSource) Stream(_ context.Context, w io.Writer) (bool, error) {
	_, err := w.Write([]byte("something"))
	return false, errors.Join(err, kimg.Errorf(kimg.ErrNoSpace, "/f", "full"))
}
