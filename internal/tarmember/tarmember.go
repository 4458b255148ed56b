// Package tarmember decides what a member of a layer's tar may be, before anybody acts on it. What it lets through can
// still aim outside a directory: whoever unpacks a tar keeps the names inside.
package tarmember

import (
	"archive/tar"
	"errors"
	"io"
	"math"
	"strings"

	"github.com/kimg/kimg"
)

// Limits of one layer's tar.
const (
	MaxName    = 4096 // bytes of a name or a link
	MaxMembers = 2_000_000
)

// Check refuses what must not come from input: names that are no paths, and overlay's own attributes, with which a tar
// could make the merged tree show files of other layers. Class limit, unsafe, invalid, or unsupported for forms of sparse members
// that archive/tar does not know.
func Check(h *tar.Header) error {
	for i, s := range []string{h.Name, h.Linkname} {
		what := []string{"name", "link"}[i]
		if len(s) > MaxName {
			return refuse(kimg.ErrLimit, h, "a member's %s of %d bytes, more than %d", what, len(s), MaxName)
		}
		if strings.Contains(s, "\x00") {
			return refuse(kimg.ErrUnsafe, h, "a zero byte in a member's %s", what)
		}
	}
	if h.Name == "" {
		return kimg.Errorf(kimg.ErrInvalid, "layer", "a member without a name")
	}
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= math.MaxUint32 || int64(h.Gid) >= math.MaxUint32 {
		return refuse(kimg.ErrInvalid, h, "owner %d:%d is out of range", h.Uid, h.Gid)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, sparseKeys) && !sparsePAX(h) {
			return refuse(kimg.ErrUnsupported, h, "a sparse member of an unknown form")
		}
		attr := strings.TrimPrefix(strings.TrimPrefix(key, Xattr), "LIBARCHIVE.xattr.")
		if attr != key && (strings.HasPrefix(attr, "trusted.overlay.") || strings.HasPrefix(attr, "user.overlay.")) {
			return refuse(kimg.ErrUnsafe, h, "carries the overlay attribute %s", kimg.Quote(attr))
		}
	}
	return nil
}

// Xattr is what comes before the name of an extended attribute in a PAX record.
const Xattr = "SCHILY.xattr."

func refuse(class kimg.Class, h *tar.Header, format string, args ...any) error {
	return kimg.Errorf(class, kimg.Escape(h.Name, 255), format, args...)
}

const sparseKeys = "GNU.sparse."

// Sparse reports whether a member that [Check] lets through has holes that the tar does not hold: its Size is the file's, and
// the tar has fewer bytes, or a map of the holes besides.
func Sparse(h *tar.Header) bool { return h.Typeflag == tar.TypeGNUSparse || sparsePAX(h) }

// sparsePAX decides as archive/tar does, which takes what it does not know for an ordinary file.
func sparsePAX(h *tar.Header) bool {
	switch h.PAXRecords[sparseKeys+"major"] + " " + h.PAXRecords[sparseKeys+"minor"] {
	case "0 0", "0 1", "1 0":
		return true
	case " ":
		return h.PAXRecords[sparseKeys+"map"] != ""
	}
	return false
}

// Explain gives an error of archive/tar about the stream itself its class: integrity when the stream is cut short, invalid
// when it is no tar. Any other error is returned as it is.
func Explain(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return kimg.Errorf(kimg.ErrIntegrity, "layer", "the tar stream is cut short")
	case errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) ||
		err != nil && strings.HasPrefix(err.Error(), "archive/tar: sparse file "): // which have no name
		return kimg.Errorf(kimg.ErrInvalid, "layer", "not a tar stream: %w", err)
	}
	return err
}
