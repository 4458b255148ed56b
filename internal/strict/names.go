package strict

import (
	"strings"

	"github.com/kimg/kimg"
)

// MaxName is the longest container name, in bytes.
const MaxName = 128

// ID checks an image, layer or container id: 64 lower-case hexadecimal digits, nothing else. Class invalid.
func ID(s string) error {
	if len(s) != 64 || !lowerHex(s) {
		return invalid("id: %s is not 64 lower-case hexadecimal digits", kimg.Quote(s))
	}
	return nil
}

// Digest checks a digest: sha256, sha384 or sha512, a colon and the lower-case hexadecimal digits of that length. Any
// other algorithm is refused, because nothing named by it could be verified. Class invalid.
func Digest(s string) error {
	algorithm, digits, _ := strings.Cut(s, ":")
	want, ok := map[string]int{"sha256": 64, "sha384": 96, "sha512": 128}[algorithm]
	if !ok || len(digits) != want || !lowerHex(digits) {
		return invalid("digest: %s is not a sha256, sha384 or sha512 digest", kimg.Quote(s))
	}
	return nil
}

// Name checks a container name: a letter or digit, then letters, digits, "_", "." and "-", [MaxName] bytes at most.
// Such a name cannot be mistaken for a path or an option. Class invalid, or limit when it is only too long.
func Name(s string) error {
	for i := range len(s) {
		c := s[i]
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			return invalid("name: %s must be letters, digits, \"_\", \".\" and \"-\", beginning with a letter or digit", kimg.Quote(s))
		}
	}
	switch {
	case s == "":
		return invalid("name: empty")
	case len(s) > MaxName:
		return kimg.Errorf(kimg.ErrLimit, "", "name: %d characters, the limit is %d", len(s), MaxName)
	}
	return nil
}

func lowerHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}
