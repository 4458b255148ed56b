package copydata

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/internal/strict"
)

// RuntimeFile is the file in a container's directory in which podman and CRI-O say how the container was started (OCI
// runtime specification, config.json). It is not there before the first start.
const RuntimeFile = "config.json"

// Engine is a program that runs containers and keeps most of what it knows about them to itself.
type Engine string

// The engines whose containers are read.
const (
	Podman Engine = "podman"
	CRIO   Engine = "cri-o"
)

// runtimeSpec is what matters of a [RuntimeFile].
type runtimeSpec struct {
	Hostname    string            `json:"hostname"`
	Annotations map[string]string `json:"annotations"`
	Process     *struct {
		Args []string `json:"args"`
		Env  []string `json:"env"`
		Cwd  string   `json:"cwd"`
		User struct {
			UID uint32 `json:"uid"`
			GID uint32 `json:"gid"`
		} `json:"user"`
	} `json:"process"`
	Linux struct {
		Namespaces []struct {
			Type string `json:"type"`
		} `json:"namespaces"`
	} `json:"linux"`
}

// FromRuntime returns the state of a container that podman or CRI-O made: the settings of its image, and over them those
// that its [RuntimeFile] shows to be other ones (environment, command, working directory, user, host name, stop signal,
// annotations). What the engines themselves add (PATH, TERM, HOSTNAME, the host's proxies, their annotations) is left
// out. spec is nil for a container that was never started, and for one of an engine nobody knows: then the settings are
// the image's. Nothing is written. The report names what only the engine knows.
//
// Errors are those of [New], and class state for a damaged file. They repeat nothing of it.
func FromRuntime(engine Engine, spec []byte, o Origin, containerID, name string) (*CopyData, convert.Report, error) {
	c, err := New(o, containerID, name)
	if err != nil {
		return nil, nil, err
	}
	c.made = "imported"
	if spec == nil {
		why := "what the container was created with is not known until it is started; its settings are those of the image"
		if engine == "" {
			why = "which tool made the container is not known; its settings are those of the image"
		}
		return c, convert.Report{{Path: "config", Kind: convert.Warning, Why: why}}, nil
	}
	object := RuntimeFile + " of container " + containerID
	var r runtimeSpec
	if len(spec) > MaxSize {
		return nil, nil, kimg.Wrap(object, damaged("%d bytes, the limit is %d", len(spec), MaxSize))
	}
	if err := strict.Unmarshal(spec, &r); err != nil {
		return nil, nil, kimg.Wrap(object, damaged("%s", err))
	}
	if r.Process == nil {
		return nil, nil, kimg.Wrap(object, damaged("process is missing"))
	}
	t := started{runtimeSpec: r, engine: engine, id: containerID}
	if err := c.update(t.override); err != nil {
		return nil, nil, kimg.Wrap(object, damaged("its settings are not valid (%s)", reason(err)))
	}
	c.edited = nil
	t.warn("config", "labels, ports, volumes, health check and stop timeout given to the engine are known to it only; they are those of the image")
	return c, t.report, nil
}

// started takes over how a container was started.
type started struct {
	runtimeSpec
	engine Engine
	id     string
	report convert.Report
}

func (t *started) warn(path, why string) {
	t.report = append(t.report, convert.Change{Path: path, Kind: convert.Warning, Why: why})
}

func (t *started) override(s *Settings) error {
	config := s.Image.Config
	config.Env = t.env(config.Env)
	t.command(config)
	if cwd := t.Process.Cwd; cwd != "" && cwd != path.Clean("/"+config.WorkingDir) {
		config.WorkingDir = cwd
	}
	t.user(config)
	t.stopSignal(config)
	if t.engine != Podman { // a pod's: it says nothing about one container
		return nil
	}
	if t.Hostname != "" && !strings.HasPrefix(t.id, t.Hostname) && t.hasNamespace("uts") {
		config.Hostname = t.Hostname
	}
	for key, value := range t.Annotations {
		if !engineAnnotation(key) {
			s.Annotations[key] = value
		}
	}
	return nil
}

func (t *started) hasNamespace(kind string) bool {
	for _, n := range t.Linux.Namespaces {
		if n.Type == kind {
			return true
		}
	}
	return false
}

// command divides the arguments of the process into entrypoint and command where the image's entrypoint says where.
func (t *started) command(config *docker.Config) {
	args := t.Process.Args
	if len(args) > 2 && args[1] == "--" && (args[0] == "/dev/init" || args[0] == "/run/podman-init") {
		args = args[2:] // podman's --init
	}
	switch {
	case slices.Equal(args, slices.Concat(config.Entrypoint, config.Cmd)):
	case len(config.Entrypoint) == 0:
		config.Cmd = args
	case len(args) >= len(config.Entrypoint) && slices.Equal(args[:len(config.Entrypoint)], config.Entrypoint):
		config.Cmd = args[len(config.Entrypoint):]
	default:
		config.Entrypoint, config.Cmd = nil, args
		t.warn("config.Entrypoint", "the container was started with another one; where it ends is not recorded, so all of the arguments are the command")
	}
}

// user compares numbers. What a name meant is written in the container's own files, which nobody here reads.
func (t *started) user(config *docker.Config) {
	uid, gid := strconv.FormatUint(uint64(t.Process.User.UID), 10), strconv.FormatUint(uint64(t.Process.User.GID), 10)
	name, group, hasGroup := strings.Cut(config.User, ":")
	if !hasGroup {
		group = gid // the one of the user, whichever it is
	}
	switch {
	case name == "" && uid == "0" && gid == "0":
	case name == "" || isNumber(name) && isNumber(group):
		if name != uid || group != gid {
			config.User = uid + ":" + gid
		}
	case name != "root" && uid == "0":
		config.User = uid + ":" + gid
	default:
		t.warn("config.User", "the image names its user; whether the container was started as another one is not known")
	}
}

func isNumber(s string) bool { _, err := strconv.ParseUint(s, 10, 32); return err == nil }

// stopSignals are those that images name, as Linux numbers them.
var stopSignals = map[string]string{
	"": "15", "HUP": "1", "INT": "2", "QUIT": "3", "KILL": "9", "USR1": "10", "USR2": "12", "TERM": "15", "WINCH": "28", "PWR": "30",
	"RTMIN": "34", "RTMIN+3": "37", "RTMIN+4": "38",
}

func (t *started) stopSignal(config *docker.Config) {
	number, ok := t.Annotations["org.opencontainers.image.stopSignal"]
	said := strings.TrimPrefix(strings.ToUpper(config.StopSignal), "SIG")
	if !ok || !isNumber(number) || said == number {
		return
	}
	if same, known := stopSignals[said]; known && same != number || isNumber(said) {
		config.StopSignal = number
	}
}

// engineAnnotation tells whether podman itself, or the image's stop signal, put an annotation there.
func engineAnnotation(key string) bool {
	for _, prefix := range []string{"io.podman.", "io.container.", "io.containers.", "io.kubernetes.", "org.opencontainers.image.stopSignal", "run.oci.", "org.systemd."} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}
