package convert

import (
	"cmp"
	"encoding/json"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// kinds holds the members by which the kinds of manifest are told apart; a nil one is absent.
type kinds struct {
	SchemaVersion json.RawMessage `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	Config        json.RawMessage `json:"config"`
	Layers        json.RawMessage `json:"layers"`
	Manifests     json.RawMessage `json:"manifests"`
	FSLayers      json.RawMessage `json:"fsLayers"`
	History       json.RawMessage `json:"history"`
}

// has reports which of a kind's members are there, as a word for each that is.
func (k kinds) has(members ...string) (present []string) {
	all := map[string]json.RawMessage{
		"config": k.Config, "layers": k.Layers, "manifests": k.Manifests, "fsLayers": k.FSLayers, "history": k.History,
	}
	for _, name := range members {
		if all[name] != nil {
			present = append(present, name)
		}
	}
	return present
}

// Detect tells the format of a manifest from its body, strictly. The media type under which the manifest came (an HTTP
// header, the word of an older tool) is only a hint: registries send wrong ones, so the body decides, and mediaType may
// be empty. An OCI index or a Docker manifest list is class unsupported: choose one of its images first.
//
// Detect answers for a manifest that is well-formed as far as its kind goes; [ParseManifest] checks the rest.
func Detect(manifest []byte, mediaType string) (Format, error) {
	f, err := detect(manifest, mediaType)
	return f, kimg.Wrap("manifest", err)
}

// membersOf decodes what tells the kinds of manifest apart, and refuses members of two kinds in one document, however
// they are spelled. What is spelled well is read once.
func membersOf(manifest []byte) (k kinds, err error) {
	if err := strict.Size("", int64(len(manifest)), strict.MaxDocument); err != nil {
		return k, err
	}
	exact := strict.UnmarshalExact(manifest, &k)
	if exact != nil {
		k = kinds{}
		if err := strict.Unmarshal(manifest, &k); err != nil {
			return k, err
		}
	}
	return k, cmp.Or(k.ambiguous(), exact)
}

func (k kinds) ambiguous() error {
	var what string
	var others []string
	switch version := string(k.SchemaVersion); {
	case version == "1":
		what, others = "a schema 1 manifest", k.has("config", "layers", "manifests")
	case version == "2" && k.Manifests != nil:
		what, others = "an index", k.has("config", "layers", "fsLayers", "history")
	case version == "2":
		what, others = "a schema 2 or OCI manifest", k.has("fsLayers", "history")
	}
	if others != nil {
		return invalid("ambiguous: %s with the member %q", what, others[0])
	}
	return nil
}

func detect(manifest []byte, hint string) (Format, error) {
	k, err := membersOf(manifest)
	if err != nil {
		return "", err
	}
	switch string(k.SchemaVersion) {
	case "1":
		return DockerV2S1, k.schema1()
	case "2":
		return k.schema2(hint)
	case "":
		return "", invalid("schema-version: there is none, so this is not a manifest")
	}
	return "", invalid("schema-version: neither 1 nor 2")
}

func (k kinds) schema1() error {
	switch k.MediaType {
	case "", docker.MediaTypeV1Manifest, docker.MediaTypeV1SignedManifest:
	default:
		return invalid("media-type: a schema 1 manifest that says it is %s", kimg.Quote(k.MediaType))
	}
	if len(k.has("fsLayers", "history")) != 2 {
		return invalid("count: a schema 1 manifest needs fsLayers and history")
	}
	return nil
}

func (k kinds) schema2(hint string) (Format, error) {
	if k.Manifests != nil {
		if _, err := k.index(); err != nil {
			return "", err
		}
		return "", kimg.Errorf(kimg.ErrUnsupported, "", "not-an-image: an index of images; choose one of them")
	}
	if len(k.has("config", "layers")) != 2 {
		return "", invalid("json-type: a manifest needs config and layers")
	}
	switch k.MediaType {
	case docker.MediaTypeManifest:
		return DockerV2S2, nil
	case ispec.MediaTypeImageManifest:
		return OCI, nil
	case "":
		return k.unlabelled(hint)
	}
	return "", invalid("media-type: an image manifest that says it is %s", kimg.Quote(k.MediaType))
}

// index decides for a schema 2 document with manifests. The first OCI indexes had no mediaType, Docker's lists always
// had.
func (k kinds) index() (Format, error) {
	switch k.MediaType {
	case "", ispec.MediaTypeImageIndex:
		return OCI, nil
	case docker.MediaTypeManifestList:
		return DockerV2S2, nil
	}
	return "", invalid("media-type: an index that says it is %s", kimg.Quote(k.MediaType))
}

// unlabelled decides for a manifest without a mediaType member. The first OCI manifests had none, Docker's always
// had: so it is OCI, unless its configuration is Docker's.
func (k kinds) unlabelled(hint string) (Format, error) {
	var config struct {
		MediaType string `json:"mediaType"`
	}
	if err := strict.UnmarshalExact(k.Config, &config); err != nil {
		return "", err
	}
	if config.MediaType == docker.MediaTypeConfig || config.MediaType == "" && hint == docker.MediaTypeManifest {
		return "", invalid("media-type: a Docker manifest without a mediaType")
	}
	return OCI, nil
}

func invalid(format string, args ...any) error {
	return kimg.Errorf(kimg.ErrInvalid, "", format, args...)
}

func limit(format string, args ...any) error {
	return kimg.Errorf(kimg.ErrLimit, "", format, args...)
}
