package layout

import (
	"cmp"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
)

// maxEntries is how many images an index may name.
const maxEntries = 10_000

// maxName is the longest name of an image in an index, in bytes.
const maxName = 255

// imageName is the grammar of org.opencontainers.image.ref.name (OCI image specification, annotations).
var imageName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*(?:/[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*)*$`)
})

// CheckName refuses what cannot be the name of an image in a layout. Empty is allowed: no name. Class invalid, or limit.
func CheckName(name string) error {
	if len(name) > maxName {
		return kimg.Errorf(kimg.ErrLimit, "", "an image name of %d bytes, more than %d", len(name), maxName)
	}
	if name != "" && !imageName().MatchString(name) {
		return kimg.Errorf(kimg.ErrInvalid, "", "%s cannot be the name of an image in a layout", kimg.Quote(name))
	}
	return nil
}

// parseIndex reads an index.json (OCI image layout, "index.json file").
func parseIndex(data []byte) (ispec.Index, error) {
	var index ispec.Index
	if err := strict.Size("", int64(len(data)), strict.MaxDocument); err != nil {
		return index, err
	}
	if err := strict.UnmarshalExact(data, &index); err != nil {
		return index, err
	}
	if index.SchemaVersion != 2 {
		return index, kimg.Errorf(kimg.ErrInvalid, "", "schema-version: not 2")
	}
	if index.MediaType != "" && index.MediaType != ispec.MediaTypeImageIndex {
		return index, kimg.Errorf(kimg.ErrInvalid, "", "media-type: an index that says it is %s", kimg.Quote(index.MediaType))
	}
	if len(index.Manifests) > maxEntries {
		return index, kimg.Errorf(kimg.ErrLimit, "", "%d entries, more than %d", len(index.Manifests), maxEntries)
	}
	return index, nil
}

// Select finds the entry of an index.json that name means, as [OpenOCI] describes.
func Select(index []byte, name string) (ispec.Descriptor, error) {
	desc, err := selectEntry(index, name)
	return desc, kimg.Wrap(ispec.ImageIndexFile, err)
}

func selectEntry(data []byte, name string) (none ispec.Descriptor, err error) {
	index, err := parseIndex(data)
	if err != nil {
		return none, err
	}
	found := index.Manifests
	if number, ok := strings.CutPrefix(name, "@"); ok {
		n, err := strconv.ParseUint(number, 10, 31)
		if err != nil {
			return none, kimg.Errorf(kimg.ErrInvalid, "", "%s is not the number of an image", kimg.Quote(name))
		}
		if n >= uint64(len(found)) {
			return none, kimg.Errorf(kimg.ErrNotFound, "", "no image %d: there are %d, counted from 0", n, len(found))
		}
		found = found[n : n+1]
	} else if name != "" {
		found = slices.DeleteFunc(slices.Clone(found), func(d ispec.Descriptor) bool { return d.Annotations[ispec.AnnotationRefName] != name })
	}
	switch {
	case len(found) == 0 && name == "":
		return none, kimg.Errorf(kimg.ErrNotFound, "", "there is no image")
	case len(found) == 0:
		return none, kimg.Errorf(kimg.ErrNotFound, "", "no image %s; there is %s", kimg.Quote(name), names(index.Manifests))
	case name == "" && len(found) > 1:
		return none, kimg.Errorf(kimg.ErrInvalid, "", "%d images and no name: choose one of %s", len(found), names(found))
	}
	for _, d := range found[1:] {
		if d.Digest != found[0].Digest {
			return none, kimg.Errorf(kimg.ErrInvalid, "", "ambiguous: several images are called %s", kimg.Quote(name))
		}
	}
	return found[0], checkEntry(found[0])
}

// Image is one image of an index.json.
type Image struct {
	ispec.Descriptor
	Names []string // there may be none, and they need not be good ones
}

// Images lists the images of an index.json. Entries with one digest are one image, the first of them.
func Images(index []byte) ([]Image, error) {
	x, err := parseIndex(index)
	if err != nil {
		return nil, kimg.Wrap(ispec.ImageIndexFile, err)
	}
	var images []Image
	at := map[digest.Digest]int{}
	for _, d := range x.Manifests {
		n, again := at[d.Digest]
		if !again {
			n = len(images)
			at[d.Digest], images = n, append(images, Image{Descriptor: d})
		}
		if name := cmp.Or(d.Annotations["io.containerd.image.name"], d.Annotations[ispec.AnnotationRefName]); name != "" {
			images[n].Names = append(images[n].Names, name)
		}
	}
	return images, nil
}

// Check refuses an entry that cannot name an image, as [Select] does.
func (i Image) Check() error { return kimg.Wrap(ispec.ImageIndexFile, checkEntry(i.Descriptor)) }

// checkEntry refuses an entry that cannot name an image.
func checkEntry(d ispec.Descriptor) error {
	if err := strict.Digest(d.Digest.String()); err != nil {
		return err
	}
	if d.Size < 0 {
		return kimg.Errorf(kimg.ErrInvalid, "", "size: negative")
	}
	if err := strict.Size(d.Digest.String(), d.Size, strict.MaxDocument); err != nil {
		return err
	}
	switch d.MediaType {
	case ispec.MediaTypeImageManifest, ispec.MediaTypeImageIndex, docker.MediaTypeManifest, docker.MediaTypeManifestList:
		return nil
	}
	return kimg.Errorf(kimg.ErrUnsupported, d.Digest.String(), "media-type: not an image but %s", kimg.Quote(d.MediaType))
}

// names lists what images can be asked for, for people.
func names(entries []ispec.Descriptor) string {
	all := map[string]bool{}
	for i, d := range entries {
		name := d.Annotations[ispec.AnnotationRefName]
		if name == "" {
			name = "@" + strconv.Itoa(i)
		}
		all[name] = true
	}
	return List(slices.Sorted(maps.Keys(all)))
}

// List renders the names of images for an error text, shortened when there are many.
func List(names []string) string {
	const most = 10
	if len(names) == 0 {
		return "none"
	}
	shown := make([]string, 0, most)
	for _, n := range names[:min(len(names), most)] {
		shown = append(shown, `"`+kimg.Escape(n, 80)+`"`)
	}
	text := strings.Join(shown, ", ")
	if len(names) > most {
		text += " and " + strconv.Itoa(len(names)-most) + " more"
	}
	return text
}

// Replace returns an index.json in which name means the image desc describes. What meant it before is dropped; every
// other entry, and every member the index has besides, stays byte for byte. An empty name adds an entry without one. An
// empty index stands for a new one.
func Replace(index []byte, name string, desc ispec.Descriptor) ([]byte, error) {
	data, err := replace(index, name, desc)
	return data, kimg.Wrap(ispec.ImageIndexFile, err)
}

func replace(index []byte, name string, desc ispec.Descriptor) ([]byte, error) {
	if len(index) == 0 {
		index = []byte(`{"schemaVersion":2,"manifests":[]}`)
	}
	parsed, err := parseIndex(index)
	if err != nil {
		return nil, err
	}
	desc.Annotations = nil
	if name != "" {
		desc.Annotations = map[string]string{ispec.AnnotationRefName: name}
	}
	entry, err := strict.Marshal(desc)
	if err != nil {
		return nil, err
	}
	members, err := strict.Object(index)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(members, func(m strict.Member) bool { return m.Name == "manifests" })
	if i < 0 || parsed.Manifests == nil { // absent or null
		members = slices.DeleteFunc(members, func(m strict.Member) bool { return m.Name == "manifests" })
		i, members = len(members), append(members, strict.Member{Key: json.RawMessage(`"manifests"`), Value: json.RawMessage("[]")})
	}
	old, err := strict.List(members[i].Value)
	if err != nil {
		return nil, err
	}
	members[i].Value = join('[', ']', entries(old, parsed.Manifests, name, desc, entry))
	out := make([]json.RawMessage, len(members))
	for i, m := range members {
		out[i] = slices.Concat(m.Key, json.RawMessage(":"), m.Value)
	}
	data := join('{', '}', out)
	return data, strict.Size("", int64(len(data)), strict.MaxDocument)
}

// entries puts the new entry where the first of its name was, or at the end.
func entries(old []json.RawMessage, parsed []ispec.Descriptor, name string, desc ispec.Descriptor, entry json.RawMessage) []json.RawMessage {
	var out []json.RawMessage
	placed := false
	for i, raw := range old {
		same := parsed[i].Annotations[ispec.AnnotationRefName] == name
		if name == "" {
			same = same && parsed[i].Digest == desc.Digest
		}
		switch {
		case !same:
			out = append(out, raw)
		case !placed:
			out, placed = append(out, entry), true
		}
	}
	if !placed {
		out = append(out, entry)
	}
	return out
}

func join(open, shut byte, parts []json.RawMessage) json.RawMessage {
	out := json.RawMessage{open}
	for i, p := range parts {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, p...)
	}
	return append(out, shut)
}
