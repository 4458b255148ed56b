package strict

import (
	"errors"
	"strings"
	"testing"

	"github.com/kimg/kimg"
)

func TestID(t *testing.T) {
	good := strings.Repeat("0f", 32)
	if err := ID(good); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "0f", good + "\n", good[1:], good + "0", strings.ToUpper(good), "sha256:" + good, good[:63] + "/", good[:63] + "g", "../" + good[3:]} {
		if err := ID(bad); !errors.Is(err, kimg.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestDigest(t *testing.T) {
	hex := strings.Repeat("0f", 32)
	for _, good := range []string{"sha256:" + hex, "sha384:" + strings.Repeat("a", 96), "sha512:" + hex + hex} {
		if err := Digest(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{
		"", hex, ":" + hex, "sha256:", "sha256" + hex, "sha256:" + hex + "\n", "sha256:" + hex[1:], "sha512:" + hex, "sha256:" + strings.ToUpper(hex),
		"SHA256:" + hex, "sha256::" + hex[1:], "md5:d41d8cd98f00b204e9800998ecf8427e", "tarsum+sha256:" + hex, "sha256:../" + hex[3:], "sha256:" + hex[:63] + "\x00",
	} {
		if err := Digest(bad); !errors.Is(err, kimg.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestName(t *testing.T) {
	for _, good := range []string{"a", "0", "A-b_c.d", strings.Repeat("x", 128)} {
		if err := Name(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "-a", ".a", "..", "_a", "a/b", "a b", "a\n", "ä", "a\x00", "a:b", "a@b"} {
		if err := Name(bad); !errors.Is(err, kimg.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := Name(strings.Repeat("x", 129)); !errors.Is(err, kimg.ErrLimit) {
		t.Error(err)
	}
	if err := Name(strings.Repeat("/", 1<<20)); len(err.Error()) > 500 {
		t.Error("the error repeats too much")
	}
}
