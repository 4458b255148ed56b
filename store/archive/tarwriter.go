package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/kimg/kimg"
)

// tarWriter writes members with headers that depend on nothing but their names, sizes and kinds. The first error stays.
// Unlike the standard writer it lets the kernel copy from file to file.
type tarWriter struct {
	ctx context.Context // of the one call the writer lives in
	f   io.Writer
	err error
}

func (w *tarWriter) header(h tar.Header) {
	if w.err != nil {
		return
	}
	h.ModTime = time.Unix(0, 0)
	var b bytes.Buffer
	if w.err = tar.NewWriter(&b).WriteHeader(&h); w.err == nil {
		_, w.err = w.f.Write(b.Bytes())
	}
}

func (w *tarWriter) pad(size int64) {
	if rest := size % 512; w.err == nil && rest > 0 {
		_, w.err = w.f.Write(make([]byte, 512-rest))
	}
}

func (w *tarWriter) dir(name string) {
	w.header(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755})
}

func (w *tarWriter) link(name, target string) {
	w.header(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777})
}

func (w *tarWriter) bytes(name string, data []byte) {
	w.header(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))})
	if w.err == nil {
		_, w.err = w.f.Write(data)
	}
	w.pad(int64(len(data)))
}

// file moves the content of a file into the archive; the file is gone afterwards, so that it need not reach the disk.
func (w *tarWriter) file(name, path string, size int64) {
	w.header(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size})
	if w.err == nil {
		w.err = w.move(path, size)
	}
	w.pad(size)
}

// stream writes a blob while it is made.
func (w *tarWriter) stream(name string, b Blob) {
	w.header(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: b.Size})
	if w.err != nil {
		return
	}
	exact := &bounded{w.f, b.Size}
	if w.err = b.Write(w.ctx, exact); w.err == nil && exact.left != 0 {
		w.err = errLength
	}
	if errors.Is(w.err, errLength) {
		w.err = kimg.Errorf(kimg.ErrIntegrity, name, "size: not the %d bytes that were announced", b.Size)
	}
	w.pad(b.Size)
}

var errLength = errors.New("another length than announced")

// bounded takes only so many bytes.
type bounded struct {
	io.Writer
	left int64
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errLength
	}
	return b.Writer.Write(p)
}

func (w *tarWriter) move(path string, size int64) error {
	const atOnce = 64 << 20 // between two looks at the context
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	for left := size; left > 0; {
		if err := context.Cause(w.ctx); err != nil {
			return err
		}
		n, err := io.Copy(w.f, io.LimitReader(in, min(left, atOnce)))
		if err != nil {
			return err
		}
		if n == 0 {
			return kimg.Errorf(kimg.ErrInternal, "", "a staged file became shorter")
		}
		left -= n
	}
	return os.Remove(path)
}

// end writes the two empty blocks that end a tar and returns the first error there was.
func (w *tarWriter) end() error {
	if w.err == nil {
		_, w.err = w.f.Write(make([]byte, 1024))
	}
	return w.err
}
