package rootfs

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"strconv"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg/internal/atfs"
)

// file is what counts of one file besides its names.
type file struct {
	kind     byte
	mode     uint32
	uid, gid uint32
	mtime    int64
	implied  bool // the time is not counted
	content  string
	at, size int64        // of the content of a regular file that is kept
	xattrs   []atfs.Xattr // sorted by name
}

type sum [sha256.Size]byte

// sum returns the digest of the file.
func (f *file) sum() sum {
	time := strconv.FormatInt(f.mtime, 10)
	if f.implied {
		time = "-"
	}
	mode := f.mode
	if f.kind == 'l' {
		mode = 0o777
	}
	var buf [512]byte
	b := field(buf[:0], string(f.kind))
	b = field(b, fmt.Sprintf("%04o", mode))
	b = field(b, strconv.FormatUint(uint64(f.uid), 10))
	b = field(b, strconv.FormatUint(uint64(f.gid), 10))
	b = field(b, time)
	b = field(b, f.content)
	b = field(b, strconv.Itoa(len(f.xattrs)))
	for _, x := range f.xattrs {
		b = field(field(b, x.Name), x.Value)
	}
	return sha256.Sum256(b)
}

func device(major, minor uint32) string { return fmt.Sprintf("%d,%d", major, minor) }

// recorder takes the names of a tree in their order.
type recorder struct {
	hash    hash.Hash
	entries int
	buf     []byte
}

func newRecorder() *recorder { return &recorder{hash: sha256.New()} }

// add takes one name; first is the earlier name of the same file, if there is one.
func (r *recorder) add(path string, s sum, first string) {
	r.buf = field(field(field(r.buf[:0], path), string(s[:])), first)
	_, _ = r.hash.Write(r.buf) // a hash never fails
	r.entries++
}

func (r *recorder) digest() digest.Digest { return digest.NewDigest(digest.SHA256, r.hash) }

func field(b []byte, s string) []byte {
	b = strconv.AppendInt(b, int64(len(s)), 10)
	b = append(b, ':')
	b = append(b, s...)
	return append(b, ',')
}
