package untar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/layerdiff/untar"
)

// A member that leads out of the directory is refused, before anything outside is touched.
func Example() {
	for _, name := range []string{"etc/motd", "../etc/motd"} {
		if err := unpackFile(name); err != nil {
			fmt.Println(kimg.ClassOf(err))
		}
	}
	// Output:
	// 2048 bytes unpacked
	// unsafe
}

func unpackFile(name string) error {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Size: 3, Mode: 0o644, Uid: os.Getuid(), Gid: os.Getgid()}); err != nil {
		return err
	}
	if _, err := w.Write([]byte("hi\n")); err != nil {
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
	r, err := untar.Unpack(context.Background(), dir, io.NopCloser(&b), untar.Options{
		Record: func() (*os.File, error) {
			f, err := os.CreateTemp("", "kimg-")
			if err != nil {
				return nil, err
			}
			return f, os.Remove(f.Name())
		},
	})
	if err != nil {
		return err
	}
	fmt.Println(r.Size, "bytes unpacked")
	return r.Record.Close()
}
