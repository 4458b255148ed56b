package archive

import (
	"context"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/compression"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/internal/streamio"
)

// maxArchive is the largest archive unpacked, in bytes (failure model: an uncompressed image).
const maxArchive = 256 << 30

// prefix is how the names of temporary files begin, for the moment they have one.
const prefix = ".kimg-archive-"

// unpack returns f itself when it is plain, else a temporary file without a name that holds its plain form, and f is
// closed. After an error f is closed too.
func unpack(ctx context.Context, f *os.File, dir string) (*os.File, error) {
	var first [6]byte
	n, err := f.ReadAt(first[:], 0)
	if err != nil && err != io.EOF {
		f.Close()
		return nil, err
	}
	if compression.Detect(first[:n]) == compression.None {
		return f, nil
	}
	defer f.Close()
	tmp, err := safeopen.Nameless(dir, prefix)
	if err != nil {
		return nil, err
	}
	if err := fill(ctx, tmp, f); err != nil {
		tmp.Close()
		return nil, err
	}
	return tmp, nil
}

// fill unpacks f. It stops before the disk is full: 5 % of what is free stay free.
func fill(ctx context.Context, tmp *os.File, f io.Reader) error {
	var disk unix.Statfs_t
	if err := unix.Fstatfs(int(tmp.Fd()), &disk); err != nil {
		return os.NewSyscallError("statfs", err)
	}
	most, full := int64(maxArchive), false
	if free := int64(disk.Bavail) * int64(disk.Bsize) / 100 * 95; disk.Blocks > 0 && free < most {
		most, full = free, true
	}
	plain, _, err := compression.NewReader(ctx, streamio.WithContext(ctx, f))
	if err != nil {
		return err
	}
	defer plain.Close()
	n, err := streamio.Copy(tmp, io.LimitReader(plain, most+1))
	switch {
	case err != nil:
		return err
	case n > most && full:
		return kimg.Errorf(kimg.ErrNoSpace, "", "too-big: unpacked it has more than %d bytes, which is what the temporary directory can take", most)
	case n > most:
		return kimg.Errorf(kimg.ErrLimit, "", "too-big: unpacked it has more than %d bytes", most)
	}
	return nil
}
