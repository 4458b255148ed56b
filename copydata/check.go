package copydata

import (
	"path"
	"unicode"
	"unicode/utf8"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/strict"
)

// Limits of single members, in bytes.
const (
	maxImageName  = 1024 // a reference of 255 characters with the longest host and digest fits many times
	maxMountPoint = 4096 // PATH_MAX
)

// check checks the members that are ids, names, paths and texts. The errors name the member and repeat nothing.
func (c *CopyData) check() error {
	if c.containerID != "" && strict.ID(c.containerID) != nil {
		return invalid("container-id is not 64 lower-case hexadecimal digits")
	}
	if c.imageID != "" && strict.ID(c.imageID) != nil {
		return invalid("image-id is not 64 lower-case hexadecimal digits")
	}
	if c.name != "" && strict.Name(c.name) != nil {
		return invalid("container-name is not a container name")
	}
	if !printable(c.imageName, maxImageName) {
		return invalid("image is not the name of an image")
	}
	if c.mountPoint != "" && (!path.IsAbs(c.mountPoint) || path.Clean(c.mountPoint) != c.mountPoint || !printable(c.mountPoint, maxMountPoint)) {
		return invalid("mountpoint is not a plain absolute path")
	}
	if !utf8.ValidString(c.createdBy) || !utf8.ValidString(c.historyComment) {
		return invalid("created-by or history-comment is not valid UTF-8")
	}
	for name, annotations := range map[string]map[string]string{"annotations": c.annotations, "layer-annotations": c.layerAnnotations} {
		for key, value := range annotations {
			if key == "" || !utf8.ValidString(key) || !utf8.ValidString(value) {
				return invalid("%s has a key that is empty or text that is not valid UTF-8", name)
			}
		}
	}
	return nil
}

// printable reports whether a text is short enough, UTF-8 and free of control characters.
func printable(s string, max int) bool {
	if len(s) > max || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return false
		}
	}
	return true
}

func invalid(format string, args ...any) error {
	return kimg.Errorf(kimg.ErrInvalid, "", format, args...)
}
