package layerdiff

import (
	"archive/tar"
	"bytes"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/atfs"
)

// header is what one tar member says before its content. The name is dir+base, so that the common case needs no string
// of its own.
type header struct {
	dir, base    string // dir is empty or ends in a slash; base of a directory ends in a slash too
	typ          byte   // a tar type flag
	mode         uint32 // permission, setuid, setgid and sticky bits
	uid, gid     uint32
	size         int64
	mtime        int64 // whole seconds
	link         string
	major, minor uint32
	xattrs       []atfs.Xattr
}

const (
	tarBlock   = 512
	maxTarName = 4095    // a path the kernel takes in one piece
	maxOctal7  = 1 << 21 // first value that does not fit a field of 7 octal digits
	maxOctal11 = 1 << 33 // the same for 11 digits
)

var zeros [64 << 10]byte

// appendHeader appends the bytes of the header, PAX records included, exactly as archive/tar writes them: a plain ustar
// block where that can say everything, else PAX. It keeps equal trees at the digests other tools give them.
func appendHeader(dst []byte, h *header) ([]byte, error) {
	if len(h.dir)+len(h.base) > maxTarName {
		return dst, &kimg.Error{Class: kimg.ErrLimit, Err: errors.New("the name is longer than 4095 bytes")}
	}
	start := len(dst)
	dst = append(dst, zeros[:tarBlock]...)
	if fillUSTAR(dst[start:], h) {
		return dst, nil
	}
	return appendPAX(dst[:start], h)
}

// fillUSTAR fills a zeroed block; false when ustar cannot say what the header says.
func fillUSTAR(b []byte, h *header) bool {
	if len(h.xattrs) > 0 || h.uid >= maxOctal7 || h.gid >= maxOctal7 || h.size >= maxOctal11 || h.mtime < 0 ||
		h.mtime >= maxOctal11 || len(h.link) > 100 || !ascii(h.dir) || !ascii(h.base) || !ascii(h.link) {
		return false
	}
	if n := len(h.dir) + len(h.base); n <= 100 {
		copy(b[copy(b, h.dir):100], h.base)
	} else {
		prefix, suffix, ok := splitUSTAR(h.dir + h.base)
		if !ok {
			return false
		}
		copy(b, suffix)
		copy(b[345:500], prefix)
	}
	octal(b[100:108], uint64(h.mode))
	octal(b[108:116], uint64(h.uid))
	octal(b[116:124], uint64(h.gid))
	octal(b[124:136], uint64(h.size))
	octal(b[136:148], uint64(h.mtime))
	b[156] = h.typ
	copy(b[157:257], h.link)
	copy(b[257:265], "ustar\x0000")
	octal(b[329:337], uint64(h.major))
	octal(b[337:345], uint64(h.minor))
	sum := uint64(8 * ' ') // the checksum field counts as blanks
	for _, c := range b {
		sum += uint64(c)
	}
	octal(b[148:155], sum)
	b[155] = ' '
	return true
}

// octal writes n into field, zero padded, with a NUL at the end.
func octal(field []byte, n uint64) {
	for i := len(field) - 2; i >= 0; i-- {
		field[i] = '0' + byte(n&7)
		n >>= 3
	}
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// splitUSTAR cuts a name of more than 100 bytes at a slash so that both parts fit their fields.
func splitUSTAR(name string) (prefix, suffix string, ok bool) {
	const maxPrefix, maxSuffix = 155, 100
	search := name
	if len(search) > maxPrefix+1 {
		search = search[:maxPrefix+1]
	} else {
		search = strings.TrimSuffix(search, "/")
	}
	i := strings.LastIndexByte(search, '/')
	if i <= 0 || i > maxPrefix || len(name)-i-1 > maxSuffix || len(name)-i-1 == 0 {
		return "", "", false
	}
	return name[:i], name[i+1:], true
}

// appendPAX leaves the rare cases to the standard library.
func appendPAX(dst []byte, h *header) ([]byte, error) {
	t := tar.Header{
		Typeflag: h.typ, Name: h.dir + h.base, Linkname: h.link, Size: h.size, Mode: int64(h.mode),
		Uid: int(h.uid), Gid: int(h.gid), ModTime: time.Unix(h.mtime, 0), Devmajor: int64(h.major), Devminor: int64(h.minor),
	}
	if len(h.xattrs) > 0 {
		t.PAXRecords = make(map[string]string, len(h.xattrs))
		for _, x := range h.xattrs {
			t.PAXRecords["SCHILY.xattr."+x.Name] = x.Value
		}
	}
	var buf bytes.Buffer
	if err := tar.NewWriter(&buf).WriteHeader(&t); err != nil {
		if errors.Is(err, tar.ErrFieldTooLong) {
			return dst, &kimg.Error{Class: kimg.ErrLimit, Err: errors.New("more than 1 MiB of extended attributes")}
		}
		return dst, &kimg.Error{Class: kimg.ErrUnsupported, Err: err}
	}
	return append(slices.Grow(dst, buf.Len()), buf.Bytes()...), nil
}

// padding returns how many zero bytes follow content of a size.
func padding(size int64) int { return int(-size & (tarBlock - 1)) }
