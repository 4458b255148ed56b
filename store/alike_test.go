package store_test

import (
	"archive/tar"
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/store"
)

// TestAlikeTouchesFilesOnly: a table of contents that somebody else wrote can name what is no file in a layer, as a device. To open one may
// do something.
func TestAlikeTouchesFilesOnly(t *testing.T) {
	ts := newStore(t)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{
		{Typeflag: tar.TypeReg, Name: "file", Mode: 0o600, Size: 1},
		{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600},
		{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "fifo"},
		{Typeflag: tar.TypeSymlink, Name: "here", Linkname: "/."},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("x")[:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := ts.AddLayer(t.Context(), "", store.TarSource(&b))
	if err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, filepath.Join(ts.root, "overlay", l.ID, "diff", "fifo"), unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	sum := func(name string) store.FileSum {
		return store.FileSum{Name: name, Size: 1, Digest: digest.FromString("x")}
	}
	err = ts.Change(t.Context(), "look", func(ctx context.Context, tx *store.Tx) error {
		alike, err := tx.Alike(ctx, []store.FileSum{sum("file"), sum("fifo"), sum("link"), sum("here/fifo")})
		if err != nil {
			return err
		}
		defer alike.Close()
		for name, want := range map[string]bool{"file": true, "fifo": false, "link": false, "here/file": true, "here/fifo": false, "here/../fifo": false, "file/": false, "": false} {
			if open, err := alike.Find(ctx, sum(name)); err != nil || (open != nil) != want {
				t.Errorf("%s: found %v, %v", name, open != nil, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Read(watch, make([]byte, 4096)); err != unix.EAGAIN {
		t.Errorf("it was opened: %d bytes of events, %v", n, err)
	}
}
