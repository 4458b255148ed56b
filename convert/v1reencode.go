package convert

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
)

// reencoded returns the configuration in an entry as Docker starts from it. That is the text itself since Docker 1.8.3;
// an older one Docker writes anew, which adds empty members and drops what it does not know. Nothing is dropped here
// unless exact asks for the bytes Docker would get.
func reencoded(e v1Entry, exact bool) (json.RawMessage, Report, error) {
	if version := e.image.DockerVersion; !(version == "" && exact || version != "" && before183(version)) {
		return e.raw, nil, nil
	}
	source, _, err := strict.Respell(e.raw, &docker.V1Image{})
	if err != nil {
		return nil, nil, err
	}
	var image oldImage
	if err := json.Unmarshal(source, &image); err != nil {
		return nil, nil, err
	}
	written, err := json.Marshal(image)
	if err != nil {
		return nil, nil, invalid("timestamp: %w", err)
	}
	dropped, err := missing(source, written, "", fieldsOf(reflect.TypeFor[v1Only]()))
	if err != nil {
		return nil, nil, err
	}
	report := Report{}
	for _, name := range []string{"created", "container_config"} {
		members, err := memberMap(source)
		if _, had := members[name]; !had && err == nil {
			report = append(report, Change{name, Added, "Docker writes an empty one into images of Docker before 1.8.3"})
		}
	}
	if !exact && len(dropped) > 0 {
		written, err = fill(source, written)
		return written, report, err
	}
	for _, path := range dropped {
		report = append(report, Change{path, Lost, "Docker drops it from images of Docker before 1.8.3, and the same image ID was asked for"})
	}
	return written, report, nil
}

// before183 reports whether a Docker version is older than 1.8.3, by Docker's own comparison: part by part between
// dots, a part that is not a number being 0.
func before183(version string) bool {
	parts := strings.Split(version, ".")
	for i, limit := range []int{1, 8, 3} {
		n := 0
		if i < len(parts) {
			n, _ = strconv.Atoi(parts[i])
		}
		if n != limit {
			return n < limit
		}
	}
	return false
}

// missing lists the paths of the members of an object that say something and are not in another; but not of those that
// nobody misses.
func missing(object, other json.RawMessage, prefix string, unmissed map[string]reflect.Type) (paths []string, err error) {
	members, err := strict.Object(object)
	if err != nil {
		return nil, err
	}
	there, err := memberMap(other)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		value, ok := there[m.Name]
		_, unmissed := unmissed[m.Name]
		switch {
		case unmissed:
		case !ok && !blank(m.Value):
			paths = append(paths, prefix+m.Name)
		case ok && isA('{', m.Value, value):
			inner, err := missing(m.Value, value, prefix+m.Name+".", nil)
			if err != nil {
				return nil, err
			}
			paths = append(paths, inner...)
		}
	}
	return paths, nil
}

// fill adds to an object the members that only another has, at every level.
func fill(object, other json.RawMessage) (json.RawMessage, error) {
	members, err := strict.Object(object)
	if err != nil {
		return nil, err
	}
	at := map[string]int{}
	for i, m := range members {
		at[m.Name] = i
	}
	more, err := strict.Object(other)
	if err != nil {
		return nil, err
	}
	for _, m := range more {
		i, had := at[m.Name]
		switch {
		case !had:
			members = append(members, m)
		case isA('{', members[i].Value, m.Value):
			if members[i].Value, err = fill(members[i].Value, m.Value); err != nil {
				return nil, err
			}
		}
	}
	return joinObject(members), nil
}

// oldImage is a schema 1 configuration in the form Docker writes it anew in: these members, in any order.
type oldImage struct {
	ID              string     `json:"id,omitempty"`
	Parent          string     `json:"parent,omitempty"`
	Comment         string     `json:"comment,omitempty"`
	Created         time.Time  `json:"created"`
	Container       string     `json:"container,omitempty"`
	ContainerConfig oldConfig  `json:"container_config"`
	DockerVersion   string     `json:"docker_version,omitempty"`
	Author          string     `json:"author,omitempty"`
	Config          *oldConfig `json:"config,omitempty"`
	Architecture    string     `json:"architecture,omitempty"`
	Variant         string     `json:"variant,omitempty"`
	OS              string     `json:"os,omitempty"`
	Size            int64      `json:"Size,omitempty"`
}

// oldConfig is the part of it that is written in this order, empty members included.
type oldConfig struct {
	Hostname        string
	Domainname      string
	User            string
	AttachStdin     bool
	AttachStdout    bool
	AttachStderr    bool
	ExposedPorts    map[string]struct{} `json:",omitempty"`
	Tty             bool
	OpenStdin       bool
	StdinOnce       bool
	Env             []string
	Cmd             docker.Strings
	Healthcheck     *docker.Healthcheck `json:",omitempty"`
	ArgsEscaped     bool                `json:",omitempty"`
	Image           string
	Volumes         map[string]struct{}
	WorkingDir      string
	Entrypoint      docker.Strings
	NetworkDisabled bool   `json:",omitempty"`
	MacAddress      string `json:",omitempty"`
	OnBuild         []string
	Labels          map[string]string
	StopSignal      string         `json:",omitempty"`
	StopTimeout     *int           `json:",omitempty"`
	Shell           docker.Strings `json:",omitempty"`
}
