package layerdiff

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kimg/kimg/internal/atfs"
)

// Whatever a header says, its bytes are those of archive/tar: other tools' digests depend on it.
func TestHeaderEqualsArchiveTar(t *testing.T) {
	names := rapid.OneOf(
		rapid.StringMatching(`[a-z]{1,12}(/[a-z]{1,60}){0,8}`),
		rapid.StringMatching(`[a-z]{80,160}`),
		rapid.StringMatching(`[a-z]{1,100}/[a-z]{90,101}`),
		rapid.Map(rapid.SliceOfN(rapid.ByteRange(1, 255), 1, 120), func(b []byte) string {
			return "x" + strings.ReplaceAll(string(b), "/", "_")
		}),
	)
	ids := rapid.OneOf(rapid.Uint32Range(0, 70000), rapid.SampledFrom([]uint32{maxOctal7 - 1, maxOctal7, 1<<32 - 2}))
	rapid.Check(t, func(t *rapid.T) {
		h := header{
			base: names.Draw(t, "name"),
			typ: rapid.SampledFrom([]byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeChar,
				tar.TypeBlock, tar.TypeFifo}).Draw(t, "type"),
			mode:  rapid.Uint32Range(0, 0o7777).Draw(t, "mode"),
			uid:   ids.Draw(t, "uid"),
			gid:   ids.Draw(t, "gid"),
			mtime: rapid.SampledFrom([]int64{0, -1, 1, maxOctal11 - 1, maxOctal11, 1700000000, -62135596800}).Draw(t, "mtime"),
		}
		switch h.typ {
		case tar.TypeDir:
			h.base += "/"
		case tar.TypeReg:
			h.size = rapid.SampledFrom([]int64{0, 1, 511, 512, maxOctal11 - 1, maxOctal11}).Draw(t, "size")
		case tar.TypeSymlink, tar.TypeLink:
			h.link = names.Draw(t, "link")
		case tar.TypeChar, tar.TypeBlock:
			h.major, h.minor = rapid.Uint32Range(0, 4095).Draw(t, "major"), rapid.Uint32Range(0, 1<<20-1).Draw(t, "minor")
		}
		if i := strings.LastIndexByte(strings.TrimSuffix(h.base, "/"), '/'); i >= 0 && rapid.Bool().Draw(t, "split") {
			h.dir, h.base = h.base[:i+1], h.base[i+1:]
		}
		want := tar.Header{Typeflag: h.typ, Name: h.dir + h.base, Linkname: h.link, Size: h.size, Mode: int64(h.mode),
			Uid: int(h.uid), Gid: int(h.gid), ModTime: time.Unix(h.mtime, 0), Devmajor: int64(h.major), Devminor: int64(h.minor)}
		if rapid.IntRange(0, 3).Draw(t, "xattr") == 0 {
			h.xattrs = []atfs.Xattr{{Name: "user.b", Value: "\x00binary\xff"}, {Name: "user.a", Value: strings.Repeat("v", 300)}}
			want.PAXRecords = map[string]string{"SCHILY.xattr.user.a": h.xattrs[1].Value, "SCHILY.xattr.user.b": h.xattrs[0].Value}
		}
		var buf bytes.Buffer
		wantErr := tar.NewWriter(&buf).WriteHeader(&want)
		got, err := appendHeader([]byte("before"), &h)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("error %v, archive/tar says %v", err, wantErr)
		}
		if err == nil && !bytes.Equal(got, append([]byte("before"), buf.Bytes()...)) {
			t.Fatalf("got\n%q\nwant\n%q", got[6:], buf.Bytes())
		}
	})
}

func TestHeaderLimits(t *testing.T) {
	for _, h := range []header{
		{base: strings.Repeat("n/", 2048) + "n", typ: tar.TypeReg},
		{base: "x", typ: tar.TypeReg, xattrs: []atfs.Xattr{{Name: "user.a=b", Value: "v"}}},
		{base: "x", typ: tar.TypeReg, xattrs: []atfs.Xattr{{Name: "user.big", Value: strings.Repeat("v", 2<<20)}}},
	} {
		if b, err := appendHeader(nil, &h); err == nil || len(b) != 0 {
			t.Errorf("%.20s: %d bytes, error %v", h.base, len(b), err)
		}
	}
}
