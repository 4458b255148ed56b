package tarmember_test

import (
	"archive/tar"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/tarmember"
)

func TestCheck(t *testing.T) {
	pax := func(key string) tar.Header { return tar.Header{Name: "a", PAXRecords: map[string]string{key: "x"}} }
	for _, c := range []struct {
		class  error
		header tar.Header
	}{
		{nil, tar.Header{Name: "a", Uid: math.MaxUint32 - 1}},
		{nil, tar.Header{Name: strings.Repeat("n", tarmember.MaxName), Linkname: strings.Repeat("l", tarmember.MaxName)}},
		{nil, pax("SCHILY.xattr.user.x")},
		{nil, pax("SCHILY.xattr.trusted.overlayed")},
		{kimg.ErrLimit, tar.Header{Name: strings.Repeat("n", tarmember.MaxName+1)}},
		{kimg.ErrLimit, tar.Header{Name: "a", Linkname: strings.Repeat("l", tarmember.MaxName+1)}},
		{kimg.ErrUnsafe, tar.Header{Name: "a\x00b"}},
		{kimg.ErrUnsafe, tar.Header{Name: "a", Linkname: "\x00"}},
		{kimg.ErrUnsafe, pax("SCHILY.xattr.trusted.overlay.opaque")},
		{kimg.ErrUnsafe, pax("LIBARCHIVE.xattr.user.overlay.redirect")},
		{kimg.ErrInvalid, tar.Header{}},
		{kimg.ErrInvalid, tar.Header{Name: "a", Uid: -1}},
		{kimg.ErrInvalid, tar.Header{Name: "a", Gid: math.MaxUint32}},
		{nil, tar.Header{Name: "a", Typeflag: tar.TypeGNUSparse}},
		{nil, pax("GNU.sparse.map")},
		{kimg.ErrUnsupported, pax("GNU.sparse.major")},
		{kimg.ErrUnsupported, pax("GNU.sparse.realsize")},
	} {
		if err := tarmember.Check(&c.header); !errors.Is(err, c.class) || err != nil && len(kimg.Line(err)) > 1000 {
			t.Errorf("%.60v: %v, want %v", c.header, err, c.class)
		}
	}
}

func TestExplain(t *testing.T) {
	other := errors.New("other")
	for err, want := range map[error]error{
		io.ErrUnexpectedEOF: kimg.ErrIntegrity, tar.ErrHeader: kimg.ErrInvalid, tar.ErrFieldTooLong: kimg.ErrInvalid, other: other,
	} {
		if got := tarmember.Explain(err); !errors.Is(got, want) {
			t.Errorf("%v: %v", err, got)
		}
	}
}
