//go:build linux

package untar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/layerdiff/untar"
)

// A tar is unpacked into a directory, once read, and the record to put it together again is made.
func Example() {
	if err := example(context.Background()); err != nil {
		fmt.Println(kimg.Line(err))
	}
	// Output:
	// 2048 bytes, owners [0]
	// hello
}

func example(ctx context.Context) error {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "etc/motd", Typeflag: tar.TypeReg, Mode: 0o644, Size: 6}); err != nil {
		return err
	}
	if _, err := io.WriteString(w, "hello\n"); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kimg-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	done, err := untar.Unpack(ctx, dir, io.NopCloser(&layer), untar.Options{
		UserNS: true, IgnoreOwners: true, // whoever runs this
		Take: func(int64) error { return nil }, Log: slog.New(slog.DiscardHandler),
		Record: func() (*os.File, error) { return os.CreateTemp("", "record-") },
	})
	if err != nil {
		return err
	}
	defer os.Remove(done.Record.Name())
	defer done.Record.Close()
	fmt.Println(done.Size, "bytes, owners", done.UIDs)
	text, err := os.ReadFile(dir + "/etc/motd")
	fmt.Print(string(text))
	return err
}
