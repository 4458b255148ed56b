//go:build interop

package interop

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

// buildahFlags are flags of buildah config. The first ones are those that OCI can say.
var buildahFlags = map[string][]string{
	"nothing": nil,
	"OCI": {
		"--cmd", "/hello x", "--entrypoint", `["/e","f"]`, "--env", "B=2", "--env", "A-", "--label", "m=1", "--label", "l-", "--annotation", "x=y", "--port", "80", "--port", "90/udp",
		"--volume", "/v", "--user", "u:g", "--workingdir", "/w", "--stop-signal", "SIGKILL", "--author", "me", "--arch", "arm64", "--variant", "v8", "--os", "linux",
		"--os-version", "10", "--os-feature", "f", "--created-by", "cb", "--history-comment", "hc",
	},
	"history": {"--add-history", "--env", "Q=1", "--cmd", "x"},
	"Docker": {
		"--healthcheck", "CMD-SHELL true", "--healthcheck-interval", "5s", "--healthcheck-retries", "7", "--onbuild", "RUN x", "--shell", "/bin/bash -c", "--hostname", "h",
		"--domainname", "d", "--comment", "cm", "--env", "B=2",
	},
}

// TestBuildahContainers commits containers of buildah's with kimg and with buildah: the configurations are equal but for when
// they were made, by which container, and the mark of buildah's version; and but for the newest layer, whose headers buildah
// writes in another way, and which kimg leaves out when nothing changed.
func TestBuildahContainers(t *testing.T) {
	testenv.Need(t, "buildah", "skopeo")
	s := lab.NewStore(t, "")
	scratch := s.Peer("buildah", "from", "scratch")
	s.Peer("buildah", "config", "--cmd", `["/hello","sleep"]`, "--env", "A=1", "--label", "l=1", "--annotation", "an=no", scratch)
	s.Peer("buildah", "commit", "-q", scratch, "localhost/base-oci")
	s.Peer("buildah", "commit", "-q", "--format", "docker", scratch, "localhost/base-docker")
	for _, base := range []string{"localhost/base-oci", "localhost/base-docker", "scratch"} {
		for name, flags := range buildahFlags {
			t.Run(strings.TrimPrefix(base, "localhost/")+" "+name, func(t *testing.T) {
				s := s.On(t)
				c := s.Peer("buildah", "from", "--pull-never", base)
				if len(flags) > 0 {
					s.Peer("buildah", append(append([]string{"config"}, flags...), c)...)
				}
				for _, format := range []string{"oci", "docker"} {
					s.Peer("buildah", "commit", "-q", "--format", format, c, "localhost/by-buildah")
					s.Kimg("commit", "--format", format, c, "localhost/by-kimg")
					want, got := imageConfig(t, s, "localhost/by-buildah"), imageConfig(t, s, "localhost/by-kimg")
					if format == "oci" { // kimg keeps what Docker's readers understand; those of OCI do not see it
						for _, member := range []string{"Healthcheck", "OnBuild", "Shell", "Hostname", "Domainname"} {
							delete(got["config"].(map[string]any), member)
						}
						delete(got, "comment")
					}
					if d := cmp.Diff(alike(t, want, 1), alike(t, got, 0)); d != "" {
						t.Errorf("%s: buildah (-) and kimg (+) say different things:\n%s", format, d)
					}
				}
			})
		}
	}
	t.Run("a layer", func(t *testing.T) {
		s := s.On(t)
		c := s.Peer("buildah", "from", "--pull-never", "localhost/base-oci")
		s.Peer("buildah", "copy", c, lab.SmallBase(t), "/srv")
		s.Peer("buildah", "commit", "-q", c, "localhost/by-buildah")
		s.Kimg("commit", "--force", c, "localhost/by-kimg") // buildah mounts without syncs, and the mark of that stays
		same(t, "kimg's image", s.ImageTree("podman", "localhost/by-buildah"), s.ImageTree("podman", "localhost/by-kimg"))
		want, got := imageConfig(t, s, "localhost/by-buildah"), imageConfig(t, s, "localhost/by-kimg")
		if d := cmp.Diff(alike(t, want, 1), alike(t, got, 1)); d != "" {
			t.Errorf("buildah (-) and kimg (+) say different things:\n%s", d)
		}
	})
}

// imageConfig is the configuration of an image as it stands in the store.
func imageConfig(t *testing.T, s *lab.Store, image string) map[string]any {
	t.Helper()
	var m map[string]any
	out := lab.Skopeo(t, "inspect", "--config", "--raw", s.Reference(image+":latest"))
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if m["config"] == nil {
		m["config"] = map[string]any{}
	}
	return m
}

// alike takes out of a configuration what two commits of one container may say differently, its newest layers, and
// everything that says nothing.
func alike(t *testing.T, m map[string]any, newest int) any {
	t.Helper()
	for _, member := range []string{"created", "container", "container_config", "docker_version", "parent"} {
		delete(m, member)
	}
	if labels, ok := m["config"].(map[string]any)["Labels"].(map[string]any); ok {
		delete(labels, "io.buildah.version")
	}
	history := m["history"].([]any)
	for _, h := range history {
		delete(h.(map[string]any), "created")
	}
	delete(history[len(history)-1].(map[string]any), "empty_layer")
	rootfs := m["rootfs"].(map[string]any)
	ids := rootfs["diff_ids"].([]any)
	if len(ids) < newest {
		t.Fatalf("%d layers", len(ids))
	}
	rootfs["diff_ids"] = ids[:len(ids)-newest]
	return something(m)
}

// something is a value without the members that say nothing: false, zero, empty.
func something(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			if v[key] = something(inner); v[key] == nil && key != "80" && key != "90/udp" && key != "/v" {
				delete(v, key)
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		if len(v) == 0 {
			return nil
		}
		for i := range v {
			v[i] = something(v[i])
		}
	case string:
		if v == "" {
			return nil
		}
	case bool:
		if !v {
			return nil
		}
	case float64:
		if v == 0 {
			return nil
		}
	}
	return v
}

// sleeper is a program that needs nothing but a kernel, to run in an image from scratch.
const sleeper = "package main\n\nimport \"time\"\n\nfunc main() { time.Sleep(time.Hour) }\n"

// TestPodmanContainers commits containers of podman's: one that was only created is its image, one that was started has
// what it was started with.
func TestPodmanContainers(t *testing.T) {
	testenv.Root(t) // runc in a namespace needs more than these machines give
	testenv.Need(t, "podman", "runc", "buildah", "skopeo", "go")
	s := lab.NewStore(t, "")
	s.Kimg("import", program(t, "sleeper", sleeper), "localhost/tree")
	s.Kimg("from", "--name", "base", "localhost/tree")
	s.Kimg("config", "--entrypoint", `["/sleeper"]`, "--cmd", `["a","b"]`, "--env", "A=1", "--env", "B=1", "--label", "l=1", "--workingdir", "/", "--annotation", "an=i", "base")
	s.Kimg("commit", "base", "localhost/base")
	want := imageConfig(t, s, "localhost/base")

	podman := func(args ...string) string {
		return s.Peer("podman", append([]string{"--runtime", "runc"}, args...)...)
	}
	podman("create", "--name", "created", "localhost/base")
	r := s.Try("commit", "created", "localhost/created")
	if r.Code != 0 || !strings.Contains(r.Stderr, "not known until it is started") {
		t.Fatalf("exit %d: %s", r.Code, r.Stderr)
	}
	got := imageConfig(t, s, "localhost/created")
	history := got["history"].([]any)
	got["history"] = history[:len(history)-1] // the commit's own
	delete(got, "created")
	delete(want, "created")
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("a created container is not its image:\n%s", d)
	}

	limits := []string{"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--network", "none"}
	run := func(args ...string) {
		podman(append(append([]string{"run", "-d"}, limits...), args...)...)
	}
	stop := func(name string) { podman("stop", "-t", "0", name) }
	run("--name", "plain", "localhost/base")
	run("--name", "other", "--env", "A=2", "--unsetenv", "B", "--env", "X=3", "--hostname", "hh", "--user", "12:13", "--annotation", "mine=1", "--stop-signal", "9", "localhost/base", "x")
	t.Cleanup(func() { podman("rm", "-f", "-t", "0", "plain", "other") })

	if r := s.Try("commit", "plain", "localhost/plain"); r.Code != 1 || !strings.Contains(r.Stderr, "busy") {
		t.Errorf("commit of a running container: exit %d: %s", r.Code, r.Stderr)
	}
	s.Kimg("commit", "--force", "plain", "localhost/plain")
	if d := cmp.Diff(want["config"], imageConfig(t, s, "localhost/plain")["config"]); d != "" {
		t.Errorf("started as its image says, it says:\n%s", d)
	}
	stop("plain")
	stop("other")
	s.Kimg("commit", "other", "localhost/other")
	c := want["config"].(map[string]any)
	c["Env"], c["Cmd"], c["User"], c["Hostname"], c["StopSignal"] = []any{c["Env"].([]any)[0], "A=2", "X=3"}, []any{"x"}, "12:13", "hh", "9"
	if d := cmp.Diff(c, imageConfig(t, s, "localhost/other")["config"]); d != "" {
		t.Errorf("started otherwise, it says:\n%s", d)
	}
	out := lab.Skopeo(t, "inspect", "--raw", s.Reference("localhost/other:latest"))
	if !strings.Contains(out, `"mine":"1"`) || !strings.Contains(out, `"an":"i"`) || strings.Contains(out, "io.podman") {
		t.Errorf("annotations: %s", out)
	}
	s.CheckClean()
}
