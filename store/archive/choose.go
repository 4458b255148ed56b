package archive

import (
	"slices"
	"strconv"
	"strings"

	"github.com/containers/image/v5/docker/reference"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store/layout"
)

// maxReference is the longest reference, in bytes (failure model).
const maxReference = 255

// parseTag reads name:tag as Docker does: "busybox" is docker.io/library/busybox:latest.
func parseTag(ref string) (reference.NamedTagged, error) {
	if len(ref) > maxReference {
		return nil, kimg.Errorf(kimg.ErrLimit, "", "a reference of %d bytes, more than %d", len(ref), maxReference)
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, kimg.Errorf(kimg.ErrInvalid, "", "%s is not name:tag", kimg.Quote(ref))
	}
	tagged, ok := reference.TagNameOnly(named).(reference.NamedTagged)
	if _, digested := named.(reference.Digested); !ok || digested {
		return nil, kimg.Errorf(kimg.ErrInvalid, "", "%s is not name:tag", kimg.Quote(ref))
	}
	return tagged, nil
}

// choose returns the number of the image that ref means, given the tags of each: name:tag, "@N" counted from 0, or ""
// for the only one. Tags of the archive that are no references can be chosen by number only.
func choose(tags [][]string, ref string) (int, error) {
	if len(tags) == 0 {
		return 0, kimg.Errorf(kimg.ErrInvalid, "", "not-an-image: the archive names no image")
	}
	if number, ok := strings.CutPrefix(ref, "@"); ok {
		n, err := strconv.ParseUint(number, 10, 31)
		if err != nil {
			return 0, kimg.Errorf(kimg.ErrInvalid, "", "%s is not the number of an image", kimg.Quote(ref))
		}
		if n >= uint64(len(tags)) {
			return 0, kimg.Errorf(kimg.ErrNotFound, "", "no image %d: there are %d, counted from 0", n, len(tags))
		}
		return int(n), nil
	}
	if ref == "" {
		if len(tags) > 1 {
			return 0, kimg.Errorf(kimg.ErrInvalid, "", "%d images and no name: choose one of %s", len(tags), list(tags))
		}
		return 0, nil
	}
	want, err := parseTag(ref)
	if err != nil {
		return 0, err
	}
	found := -1
	for i, of := range tags {
		if !slices.ContainsFunc(of, func(tag string) bool { t, err := parseTag(tag); return err == nil && t.String() == want.String() }) {
			continue
		}
		if found >= 0 {
			return 0, kimg.Errorf(kimg.ErrInvalid, "", "ambiguous: several images are called %s", kimg.Quote(ref))
		}
		found = i
	}
	if found < 0 {
		return 0, kimg.Errorf(kimg.ErrNotFound, "", "no image %s; there is %s", kimg.Quote(ref), list(tags))
	}
	return found, nil
}

// list names every image for people.
func list(tags [][]string) string {
	var all []string
	for i, of := range tags {
		if len(of) == 0 {
			of = []string{"@" + strconv.Itoa(i)}
		}
		all = append(all, of...)
	}
	return layout.List(all)
}
