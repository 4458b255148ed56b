package store

import (
	"slices"
	"strings"

	"github.com/containers/image/v5/docker/reference"

	"github.com/kimg/kimg"
)

const maxReference = 255

// NormalizeName makes an image name the full reference podman and buildah would store: a name without a registry is below
// localhost/, one without a tag or digest gets the tag latest. A full reference comes back unchanged.
func NormalizeName(name string) (string, error) {
	if len(name) > maxReference {
		return "", kimg.Errorf(kimg.ErrLimit, kimg.Quote(name), "an image name has at most %d characters", maxReference)
	}
	full := name
	if !qualified(name) {
		full = "localhost/" + name
	}
	named, err := reference.ParseNormalizedNamed(full)
	if err != nil {
		return "", kimg.Errorf(kimg.ErrInvalid, kimg.Quote(name), "not an image name: %w", err)
	}
	if isHexID(name) {
		return "", kimg.Errorf(kimg.ErrInvalid, kimg.Quote(name), "an image name cannot look like an ID")
	}
	if _, isDigested := named.(reference.Digested); isDigested {
		if _, isTagged := named.(reference.Tagged); isTagged {
			return "", kimg.Errorf(kimg.ErrInvalid, kimg.Quote(name), "an image name has a tag or a digest, not both")
		}
		return named.String(), nil
	}
	return reference.TagNameOnly(named).String(), nil
}

// NormalizeNames normalises every name and drops repetitions.
func NormalizeNames(names []string) ([]string, error) {
	var full []string
	for _, n := range names {
		name, err := NormalizeName(n)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(full, name) {
			full = append(full, name)
		}
	}
	return full, nil
}

// qualified tells whether a name begins with a registry, by the rule every tool uses.
func qualified(name string) bool {
	first, _, found := strings.Cut(name, "/")
	return found && (strings.ContainsAny(first, ".:") || first == "localhost")
}

// isHexID tells whether s is a whole ID.
func isHexID(s string) bool { return len(s) == 64 && isHex(s) }

func isHex(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdef") == ""
}
