package testimage

import (
	"archive/tar"
	"bytes"
	"errors"
	"path"
	"strings"
)

// Hostile is one tar that aims at something its reader must not touch.
type Hostile struct {
	Name string // what it tries, for a subtest
	Tar  []byte
	// Refuse is true when no reader may accept the tar; otherwise a reader may also apply it in a way that stays inside
	// its directory.
	Refuse bool
}

// HostileTars returns tars that try to reach the file canary, an absolute path outside the directory they are unpacked
// into, or to break their reader. The canary must be byte-identical afterwards, with the same mode and no new neighbours.
func HostileTars(canary string) []Hostile {
	up := strings.Repeat("../", 64) + strings.TrimPrefix(canary, "/")
	dir := path.Dir(canary)
	file := func(name, content string) entry {
		return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o666, Size: int64(len(content))}, content}
	}
	link := func(name, target string) entry {
		return entry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}, ""}
	}
	hard := func(name, target string) entry {
		return entry{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target, Mode: 0o666}, ""}
	}
	folder := func(name string, xattrs ...string) entry {
		h := tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o777, PAXRecords: map[string]string{}}
		for i := 0; i < len(xattrs); i += 2 {
			h.PAXRecords["SCHILY.xattr."+xattrs[i]] = xattrs[i+1]
		}
		return entry{h, ""}
	}
	overlay := func(name, attr, value string) entry {
		e := file(name, "x")
		e.Header.PAXRecords = map[string]string{"SCHILY.xattr." + attr: value}
		return e
	}
	good := pack(file("a", "first"), file("b", "second"))
	many := strings.Repeat("d/", 3000) + "deep"

	return []Hostile{
		{"dot-dot", pack(file(up, "overwritten")), false},
		{"dot-dot in the middle", pack(folder("a"), file("a/../"+up, "overwritten")), false},
		{"absolute", pack(file(canary, "overwritten")), false},
		{"symlink then write", pack(link("way", dir), file("way/"+path.Base(canary), "overwritten")), false},
		{"symlink chain then write", pack(link("one", "two"), link("two", dir), file("one/"+path.Base(canary), "overwritten")), false},
		{"relative symlink then write", pack(link("way", path.Dir(up)), file("way/"+path.Base(canary), "overwritten")), false},
		{"symlink replaced by itself", pack(link("way", dir), folder("way"), file("way/new-neighbour", "x")), false},
		{"file through a link of the same name", pack(link("leaf", canary), file("leaf", "overwritten")), false},
		{"hard link outside", pack(hard("out", up), file("out", "overwritten")), false},
		{"hard link to an absolute path", pack(hard("out", canary), file("out", "overwritten")), false},
		{"hard link through a symlink", pack(link("way", dir), hard("out", "way/"+path.Base(canary)), file("out", "overwritten")), false},
		{"hard link to nothing", pack(hard("out", "not-there")), true},
		{"whiteout outside", pack(file(path.Join(path.Dir(up), ".wh."+path.Base(up)), "")), false},
		{"whiteout through a symlink", pack(link("way", dir), file("way/.wh."+path.Base(canary), "")), false},
		{"opaque marker through a symlink", pack(link("way", dir), file("way/.wh..wh..opq", "")), false},
		{"whiteout of dot-dot", pack(file("a/.wh...", "")), false},
		{"whiteout of nothing", pack(file("a/.wh.", "")), false},
		{"device", pack(entry{tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Mode: 0o666, Devmajor: 1, Devminor: 1}, ""}), false},
		{"whiteout device", pack(entry{tar.Header{Name: "gone", Typeflag: tar.TypeChar, Mode: 0, Devmajor: 0, Devminor: 0}, ""}), false},
		{"trusted overlay opaque", pack(folder("a", "trusted.overlay.opaque", "y")), false},
		{"user overlay opaque", pack(folder("a", "user.overlay.opaque", "y")), false},
		{"overlay redirect", pack(folder("a", "trusted.overlay.redirect", dir, "user.overlay.redirect", dir)), false},
		{"overlay metacopy", pack(overlay("a", "trusted.overlay.metacopy", ""), overlay("b", "user.overlay.metacopy", "")), false},
		{"name over 4096 bytes", pack(file(strings.Repeat("n", 5000), "x")), true},
		{"name component over 255 bytes", pack(file(strings.Repeat("n", 300), "x")), true},
		{"path of 3000 levels", pack(file(many, "x")), true},
		{"NUL in a name", patch(pack(file("a-b", "x")), "a-b", "a\x00b"), true},
		{"truncated in a file", good[:512+2], true},
		{"truncated in a header", good[:1024+100], true},
		{"wrong checksum", patch(good, "ustar", "vstar"), true},
		{"size beyond the end", bigSize(), true},
		{"negative size", negativeSize(), true},
		{"garbage", bytes.Repeat([]byte("kimg"), 1024), true},
	}
}

// Member is one member of a tar. Size must be that of the content.
type Member struct {
	Header  tar.Header
	Content string
}

// PackTar returns a tar that Go's writer may itself find strange, in the PAX format.
func PackTar(members ...Member) []byte { return pack(members...) }

type entry = Member

// pack writes a tar that Go's writer may itself find strange, and nothing for a header that no tar can say: that is not even
// the end of an archive, so no reader takes it for one.
func pack(entries ...entry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var err error
	for _, e := range entries {
		e.Header.Format = tar.FormatPAX
		err = errors.Join(err, w.WriteHeader(&e.Header))
		_, wrote := w.Write([]byte(e.Content))
		err = errors.Join(err, wrote)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return nil
	}
	return b.Bytes()
}

func patch(data []byte, old, with string) []byte {
	return bytes.Replace(data, []byte(old), []byte(with), 1)
}

// bigSize announces a terabyte and holds nothing.
func bigSize() []byte {
	h := header("big")
	copy(h[124:136], "20000000000\x00"[:11])
	return sum(h)
}

// negativeSize uses the base-256 form with the sign bit set.
func negativeSize() []byte {
	h := header("negative")
	for i := 124; i < 136; i++ {
		h[i] = 0xff
	}
	return sum(h)
}

func header(name string) []byte {
	return pack(entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, ""})[:512:512]
}

// sum sets the checksum of a header block.
func sum(h []byte) []byte {
	copy(h[148:156], "        ")
	n := 0
	for _, c := range h {
		n += int(c)
	}
	digits := []byte("000000\x00 ")
	for i := 5; i >= 0; i-- {
		digits[i] = '0' + byte(n&7)
		n >>= 3
	}
	copy(h[148:156], digits)
	return h
}
