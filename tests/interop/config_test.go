//go:build interop

package interop

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kimg/kimg/copydata/edit"
	"github.com/kimg/kimg/tests/lab"
)

// setting is one flag of kimg config and where each reader finds its value: the members as JSON, "" where a tool does not
// show them.
type setting struct {
	flag, value string
	podman      string // member of podman inspect, docker format
	skopeo      string // member of skopeo inspect --config, with --raw for what OCI does not have
	want        string
	buildah     bool // buildah config has the same flag and gives the same
}

var settings = []setting{
	{"os", "linux", "Os", "os", `"linux"`, true},
	{"arch", "arm64", "Architecture", "architecture", `"arm64"`, true},
	{"variant", "v8", "", "variant", `"v8"`, true},
	{"os-version", "6.1", "", "os.version", `"6.1"`, true},
	{"os-feature", "one", "", "os.features", `["one"]`, true},
	{"author", "some one", "Author", "author", `"some one"`, true},
	{"comment", "words", "", "comment", `"words"`, false}, // podman shows the one of the newest history entry, buildah loses it
	{"annotation", "a=b", "", "", "", false},              // of an OCI manifest, below
	{"created-by", "by hand", "", "", "", false},          // in the history, below
	{"history-comment", "why", "", "", "", false},
	{"user", "www:staff", "Config.User", "config.User", `"www:staff"`, true},
	{"shell", "/bin/bash -c", "", "config.Shell", `["/bin/bash","-c"]`, true},
	{"stop-signal", "SIGINT", "Config.StopSignal", "config.StopSignal", `"SIGINT"`, true},
	{"stop-timeout", "7", "", "config.StopTimeout", `7`, false},
	{"port", "1000-1002/udp", "Config.ExposedPorts", "config.ExposedPorts", `{"1000-1002/udp":{}}`, true},
	{"env", "A=b c", "Config.Env", "config.Env", `["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","A=b c"]`, true},
	{"entrypoint", `["/e", "x y"]`, "Config.Entrypoint", "config.Entrypoint", `["/e","x y"]`, true},
	{"cmd", `a "b c"`, "Config.Cmd", "config.Cmd", `["a","b c"]`, true},
	{"volume", "/v 1", "Config.Volumes", "config.Volumes", `{"/v 1":{}}`, true},
	{"healthcheck", `CMD a "b c"`, "Healthcheck.Test", "config.Healthcheck.Test", `["CMD","a","b c"]`, true},
	{"healthcheck-interval", "1m", "Healthcheck.Interval", "config.Healthcheck.Interval", `60000000000`, true},
	{"healthcheck-timeout", "2s", "Healthcheck.Timeout", "config.Healthcheck.Timeout", `2000000000`, true},
	{"healthcheck-start-period", "3s", "Healthcheck.StartPeriod", "config.Healthcheck.StartPeriod", `3000000000`, true},
	{"healthcheck-start-interval", "4s", "", "config.Healthcheck.StartInterval", `4000000000`, false},
	{"healthcheck-retries", "5", "Healthcheck.Retries", "config.Healthcheck.Retries", `5`, true},
	{"label", "l=with spaces", "Config.Labels.l", "config.Labels.l", `"with spaces"`, true},
	{"workingdir", "/srv/x", "Config.WorkingDir", "config.WorkingDir", `"/srv/x"`, true},
	{"onbuild", "RUN make all", "", "config.OnBuild", `["RUN make all"]`, true},
	{"hostname", "web", "", "config.Hostname", `"web"`, true},
	{"domainname", "example.org", "", "config.Domainname", `"example.org"`, true},
	{"unsetenv", "GONE", "", "", "", false},
	{"unsetlabel", "gone", "", "", "", false},
	{"unsetannotation", "gone", "", "", "", false},
}

// TestConfigIsReadByPeers: every flag of kimg config is found by podman inspect and skopeo inspect --config in the image that
// is committed, in both formats, and is what buildah config makes of it.
func TestConfigIsReadByPeers(t *testing.T) {
	given := map[string]bool{}
	args := []string{"config"}
	forBuildah := []string{"config"}
	for _, s := range settings {
		given[s.flag] = true
		args = append(args, "--"+s.flag, s.value)
		if s.buildah {
			forBuildah = append(forBuildah, "--"+s.flag, s.value)
		}
	}
	for _, s := range edit.Settings() {
		if !given[s.Name] {
			t.Errorf("--%s is not in the table", s.Name)
		}
	}
	s := lab.NewStore(t, "")
	s.Kimg("import", lab.SmallBase(t), "localhost/base")
	s.Kimg("from", "--name", "c", "localhost/base")
	s.Kimg("config", "--env", "GONE=1", "--label", "gone=1", "--annotation", "gone=1", "c")
	s.Kimg(append(args, "c")...)
	layout := filepath.Join(lab.TempDir(t), "layout")
	for format, dst := range map[string]string{"docker": "localhost/docker", "oci": "localhost/oci"} {
		s.Kimg("commit", "--format", format, "c", dst)
		podman := decoded(t, s.Peer("podman", "inspect", "--type", "image", dst))[0]
		skopeo := decoded(t, "["+lab.Skopeo(t, "inspect", "--config", s.Reference(dst))+"]")[0]
		raw := decoded(t, "["+lab.Skopeo(t, "inspect", "--config", "--raw", s.Reference(dst))+"]")[0]
		for _, want := range settings {
			if want.skopeo != "" {
				if got := member(raw, want.skopeo); got != want.want {
					t.Errorf("%s: --%s: skopeo inspect --config --raw says %s, want %s", format, want.flag, got, want.want)
				}
				if got := member(skopeo, want.skopeo); got != want.want && !dockerOnly(want.flag) {
					t.Errorf("%s: --%s: skopeo inspect --config says %s, want %s", format, want.flag, got, want.want)
				}
			}
			if want.podman != "" && (format == "docker" || !dockerOnly(want.flag)) {
				if got := member(podman, want.podman); got != want.want {
					t.Errorf("%s: --%s: podman inspect says %s, want %s", format, want.flag, got, want.want)
				}
			}
		}
		history := member(podman, "History")
		if !strings.Contains(history, `"created_by":"by hand"`) || !strings.Contains(history, `"comment":"why"`) {
			t.Errorf("%s: --created-by, --history-comment: %s", format, history)
		}
		if text := member(podman, "Config"); strings.Contains(strings.ToLower(text), "gone") {
			t.Errorf("%s: not unset: %s", format, text)
		}
		if got := member(podman, "Annotations.a"); format == "oci" && got != `"b"` || strings.Contains(member(podman, "Annotations"), "gone") {
			t.Errorf("%s: annotations: %s", format, member(podman, "Annotations"))
		}
	}
	s.Kimg("commit", "c", "oci:"+layout+":1")
	for _, want := range settings {
		outside := decoded(t, "["+lab.Skopeo(t, "inspect", "--config", "--raw", "oci:"+layout+":1")+"]")[0]
		if want.skopeo != "" && member(outside, want.skopeo) != want.want {
			t.Errorf("oci: --%s: skopeo says %s", want.flag, member(outside, want.skopeo))
		}
	}

	s.Peer("buildah", "from", "--name", "b", "localhost/base")
	s.Peer("buildah", append(forBuildah, "b")...)
	s.Peer("buildah", "commit", "--quiet", "--format", "docker", "b", "localhost/buildah")
	theirs := decoded(t, "["+lab.Skopeo(t, "inspect", "--config", "--raw", s.Reference("localhost/buildah"))+"]")[0]
	for _, want := range settings {
		if got := member(theirs, want.skopeo); want.buildah && got != want.want {
			t.Errorf("--%s: buildah says %s, kimg %s", want.flag, got, want.want)
		}
	}
}

// dockerOnly names the flags that set what OCI does not define.
func dockerOnly(flag string) bool {
	for _, prefix := range []string{"healthcheck", "shell", "onbuild", "hostname", "domainname", "stop-timeout", "comment"} {
		if strings.HasPrefix(flag, prefix) {
			return true
		}
	}
	return false
}

// TestChangeIsPodmans: --change does what podman commit --change does, where podman has the instruction and follows Docker.
func TestChangeIsPodmans(t *testing.T) {
	s := lab.NewStore(t, "")
	s.Kimg("import", lab.SmallBase(t), "localhost/base")
	s.Kimg("from", "--name", "c", "localhost/base")
	s.Peer("podman", "create", "--name", "p", "localhost/base", "true")
	changes := []string{
		`ENV A=1`, `EXPOSE 80`, `LABEL l=1`, `STOPSIGNAL 9`, `USER www`, `VOLUME /v`, `WORKDIR /w`, `CMD ["a", "b"]`, `ENTRYPOINT ["e"]`,
	}
	var args []string
	for _, c := range changes {
		args = append(args, "--change", c)
	}
	s.Kimg(append(append([]string{"commit"}, args...), "c", "localhost/kimg")...)
	s.Peer("podman", append(append([]string{"commit", "--quiet"}, args...), "p", "localhost/podman")...)
	ours := decoded(t, s.Peer("podman", "inspect", "--type", "image", "localhost/kimg"))[0]
	theirs := decoded(t, s.Peer("podman", "inspect", "--type", "image", "localhost/podman"))[0]
	for _, name := range []string{"ExposedPorts", "Labels", "StopSignal", "User", "Volumes", "WorkingDir", "Cmd", "Entrypoint"} {
		if a, b := member(ours, "Config."+name), member(theirs, "Config."+name); a != b && name != "Labels" {
			t.Errorf("%s: kimg %s, podman %s", name, a, b)
		}
	}
	if a, b := member(ours, "Config.Labels.l"), member(theirs, "Config.Labels.l"); a != b {
		t.Errorf("LABEL: kimg %s, podman %s", a, b)
	}
	if env := member(theirs, "Config.Env"); !strings.Contains(env, `"A=1"`) || !strings.Contains(member(ours, "Config.Env"), `"A=1"`) {
		t.Errorf("ENV: podman %s", env)
	}
}

// TestEditedImageIsReadByPeers: what config --image makes is an image for everybody, with the layers of the other.
func TestEditedImageIsReadByPeers(t *testing.T) {
	s := lab.NewStore(t, "")
	s.Kimg("import", lab.SmallBase(t), "localhost/base")
	s.Kimg("config", "--image", "localhost/base", "--label", "l=1", "localhost/edited")
	image := decoded(t, s.Peer("podman", "inspect", "--type", "image", "localhost/edited"))[0]
	if got := member(image, "Labels.l"); got != `"1"` {
		t.Errorf("podman says %s", got)
	}
	if a, b := member(image, "RootFS"), member(decoded(t, s.Peer("podman", "inspect", "--type", "image", "localhost/base"))[0], "RootFS"); a != b {
		t.Errorf("layers %s, not %s", a, b)
	}
	same(t, "skopeo", s.ImageTree("podman", "localhost/base"), s.ImageTree("podman", "localhost/edited"))
	dir := filepath.Join(lab.TempDir(t), "copy")
	lab.Skopeo(t, "copy", "-q", s.Reference("localhost/edited"), "dir:"+dir)
	if _, err := os.Stat(filepath.Join(dir, "manifest.json")); err != nil {
		t.Error(err)
	}
}

// decoded reads the JSON list that podman inspect prints.
func decoded(t *testing.T, text string) []map[string]any {
	t.Helper()
	var list []map[string]any
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) == 0 {
		t.Fatalf("%v: %s", err, text)
	}
	return list
}

// member finds a member by its path and returns it as JSON, "" when it is not there. A member may have dots in its name.
func member(object any, path string) string {
	m, _ := object.(map[string]any)
	if v, ok := m[path]; ok {
		data, _ := json.Marshal(v)
		return string(data)
	}
	first, rest, ok := strings.Cut(path, ".")
	if v := m[first]; ok && v != nil {
		return member(v, rest)
	}
	return ""
}
