package convert_test

import (
	"encoding"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
)

// The ledger places every JSON path of the image types: "both" formats, or one of them. A type that gains or loses a
// path fails this test until somebody has decided what the conversions do about it.
//
// What the places mean for package convert: "both" is copied as it is. "docker" rides along in OCI documents and comes
// back. "oci" in a manifest is lost in schema 2, and ManifestLosses says so. There is no "oci" in the image ledger, and
// there must not be: a Docker document has to be able to say all that an OCI one says.
var imageLedger = `
both  architecture author created os os.features os.version variant
both  config config.ArgsEscaped config.Cmd config.Entrypoint config.Env config.ExposedPorts config.Labels config.StopSignal
both  config.User config.Volumes config.WorkingDir
both  history history[].author history[].comment history[].created history[].created_by history[].empty_layer
both  rootfs rootfs.diff_ids rootfs.type
docker  comment container container_config docker_version parent
docker  config.AttachStderr config.AttachStdin config.AttachStdout config.CpuShares config.Cpuset config.Domainname
docker  config.Healthcheck config.Healthcheck.Interval config.Healthcheck.Retries config.Healthcheck.StartInterval
docker  config.Healthcheck.StartPeriod config.Healthcheck.Test config.Healthcheck.Timeout config.Hostname config.Image
docker  config.MacAddress config.Memory config.MemorySwap config.NetworkDisabled config.OnBuild config.OpenStdin
docker  config.PortSpecs config.PublishService config.SecurityOpt config.Shell config.StdinOnce config.StopTimeout
docker  config.Tty config.VolumeDriver
docker  container_config.ArgsEscaped container_config.AttachStderr container_config.AttachStdin container_config.AttachStdout
docker  container_config.Cmd container_config.CpuShares container_config.Cpuset container_config.Domainname
docker  container_config.Entrypoint container_config.Env container_config.ExposedPorts container_config.Healthcheck
docker  container_config.Healthcheck.Interval container_config.Healthcheck.Retries container_config.Healthcheck.StartInterval
docker  container_config.Healthcheck.StartPeriod container_config.Healthcheck.Test container_config.Healthcheck.Timeout
docker  container_config.Hostname container_config.Image container_config.Labels container_config.MacAddress
docker  container_config.Memory container_config.MemorySwap container_config.NetworkDisabled container_config.OnBuild
docker  container_config.OpenStdin container_config.PortSpecs container_config.PublishService container_config.SecurityOpt
docker  container_config.Shell container_config.StdinOnce container_config.StopSignal container_config.StopTimeout
docker  container_config.Tty container_config.User container_config.VolumeDriver container_config.Volumes
docker  container_config.WorkingDir
`

var manifestLedger = `
both  schemaVersion mediaType
both  config config.mediaType config.digest config.size config.urls
both  layers layers[].mediaType layers[].digest layers[].size layers[].urls
oci   artifactType annotations
oci   config.annotations config.artifactType config.data config.platform config.platform.architecture config.platform.os
oci   config.platform.os.features config.platform.os.version config.platform.variant
oci   layers[].annotations layers[].artifactType layers[].data layers[].platform layers[].platform.architecture
oci   layers[].platform.os layers[].platform.os.features layers[].platform.os.version layers[].platform.variant
oci   subject subject.annotations subject.artifactType subject.data subject.digest subject.mediaType subject.platform
oci   subject.platform.architecture subject.platform.os subject.platform.os.features subject.platform.os.version
oci   subject.platform.variant subject.size subject.urls
`

var indexLedger = `
both  schemaVersion mediaType
both  manifests manifests[].mediaType manifests[].digest manifests[].size manifests[].urls
both  manifests[].platform manifests[].platform.architecture manifests[].platform.os manifests[].platform.os.features
both  manifests[].platform.os.version manifests[].platform.variant
docker  manifests[].platform.features
oci   artifactType annotations manifests[].annotations manifests[].artifactType manifests[].data
oci   subject subject.annotations subject.artifactType subject.data subject.digest subject.mediaType subject.platform
oci   subject.platform.architecture subject.platform.os subject.platform.os.features subject.platform.os.version
oci   subject.platform.variant subject.size subject.urls
`

// Schema 1 against schema 2: what a schema 1 configuration says beside it, and what it cannot say. The members that
// only schema 1 has tell about the chain of entries and are rebuilt, never copied.
var v1Ledger = `
v1      id parent_id layer_id throwaway Size
docker  rootfs rootfs.diff_ids rootfs.type
docker  history history[].author history[].comment history[].created history[].created_by history[].empty_layer
`

// A schema 1 manifest against one of schema 2. Of the first, name, tag and architecture are given by the options or the
// configuration when it is written, and the two lists are rebuilt; a signature is never carried over.
var v1ManifestLedger = `
both    schemaVersion
v1      name tag architecture fsLayers fsLayers[].blobSum history history[].v1Compatibility
v1      signatures signatures[].header signatures[].header.alg signatures[].header.x5c signatures[].header.jwk
v1      signatures[].header.jwk.kty signatures[].header.jwk.kid signatures[].header.jwk.crv signatures[].header.jwk.x
v1      signatures[].header.jwk.y signatures[].header.jwk.n signatures[].header.jwk.e signatures[].protected signatures[].signature
docker  mediaType config config.mediaType config.digest config.size config.urls
docker  layers layers[].mediaType layers[].digest layers[].size layers[].urls
`

// What a signature says of itself is used to find the payload, and goes nowhere.
var v1ProtectedLedger = `
v1  formatLength formatTail time
`

func TestLedger(t *testing.T) {
	for _, l := range []struct {
		name, ledger string
		sides        map[string]any
	}{
		{"image", imageLedger, map[string]any{"oci": ispec.Image{}, "docker": docker.Image{}}},
		{"manifest", manifestLedger, map[string]any{"oci": ispec.Manifest{}, "docker": docker.Manifest{}}},
		{"index", indexLedger, map[string]any{"oci": ispec.Index{}, "docker": docker.ManifestList{}}},
		{"schema 1", v1Ledger, map[string]any{"v1": docker.V1Image{}, "docker": docker.Image{}}},
		{"schema 1 manifest", v1ManifestLedger, map[string]any{"v1": docker.V1Manifest{}, "docker": docker.Manifest{}}},
		{"schema 1 signature", v1ProtectedLedger, map[string]any{"v1": docker.V1Protected{}}},
	} {
		placed := ledger(t, l.ledger)
		found := map[string]string{}
		for side, v := range l.sides {
			for _, p := range paths(reflect.TypeOf(v), "") {
				if found[p] != "" {
					found[p] = "both"
				} else {
					found[p] = side
				}
			}
		}
		if l.name == "schema 1" { // the long list of what they share is the image ledger
			maps.DeleteFunc(found, func(_, place string) bool { return place == "both" })
		}
		for _, p := range slices.Sorted(maps.Keys(found)) {
			if placed[p] != found[p] {
				t.Errorf("%s: %s is %q in the types and %q in the ledger", l.name, p, found[p], placed[p])
			}
		}
		for p := range placed {
			if found[p] == "" {
				t.Errorf("%s: %s is in the ledger and in no type", l.name, p)
			}
		}
	}
}

func ledger(t *testing.T, text string) map[string]string {
	placed := map[string]string{}
	for line := range strings.Lines(strings.TrimSpace(text)) {
		words := strings.Fields(line)
		for _, p := range words[1:] {
			if placed[p] != "" {
				t.Errorf("%s is placed twice", p)
			}
			placed[p] = words[0]
		}
	}
	return placed
}

// paths lists the JSON paths a type is written as.
func paths(t reflect.Type, prefix string) (all []string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Slice:
		return paths(t.Elem(), prefix+"[]")
	case t.Kind() != reflect.Struct, t.Implements(reflect.TypeFor[json.Marshaler]()), t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return nil
	}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			all = append(all, paths(f.Type, prefix)...)
			continue
		}
		path := name
		if prefix != "" {
			path = prefix + "." + name
		}
		all = append(append(all, path), paths(f.Type, path)...)
	}
	return all
}

// Nothing may be said in OCI only: then Docker would not be a superset, and editing it would not reach all.
func TestDockerIsASuperset(t *testing.T) {
	for path, place := range ledger(t, imageLedger) {
		if place != "both" && place != "docker" {
			t.Errorf("%s is %s", path, place)
		}
	}
}

// The index that conversions work on has all that either kind has, and nothing else.
func TestIndexIsTheUnion(t *testing.T) {
	placed := ledger(t, indexLedger)
	found := map[string]bool{}
	for _, p := range paths(convert.IndexType, "") {
		if found[p] = true; placed[p] == "" {
			t.Errorf("%s is in neither", p)
		}
	}
	for p := range placed {
		if !found[p] {
			t.Errorf("%s is missing", p)
		}
	}
}
