package copydata_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
	"github.com/kimg/kimg/copydata"
)

// buildahFile is what buildah 1.28 writes for a container of [origin], after every flag of buildah config.
const buildahFile = `{"Args":{},"type":"buildah 0.0.1","image":"docker.io/library/x:1","image-id":"` + imgID + `","image-digest":"","config":"e30=","manifest":"e30=",
"container-name":"box","container-id":"` + ctr + `","mountpoint":"/mnt/x","annotations":{"who":"you"},"created-by":"cb","history-comment":"hc",
"ociv1":{"created":"2020-01-02T03:04:05.6Z","author":"me","architecture":"arm64","variant":"v8","os":"linux","os.version":"10","os.features":["f"],
 "config":{"User":"u","ExposedPorts":{"80":{}},"Env":["B=2"],"Entrypoint":["/e"],"Cmd":["/hello"],"Volumes":{"/v":{}},"WorkingDir":"/w","Labels":{"m":"1"},"StopSignal":"KILL"},
 "rootfs":{"type":"layers","diff_ids":["` + diffA + `"]},"history":[{"created":"2020-01-02T03:04:05.6Z","created_by":"x"}]},
"docker":{"comment":"cm","created":"2020-01-02T03:04:05.6Z","container_config":{"Hostname":"h"},"author":"me",
 "config":{"Hostname":"h","Domainname":"d","User":"u","AttachStdin":false,"ExposedPorts":{"80":{}},"Env":["B=2"],"Cmd":["/hello"],"Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":5},
 "Image":"","Volumes":{"/v":{}},"WorkingDir":"/w","Entrypoint":["/e"],"OnBuild":["RUN x"],"Labels":{"m":"1"},"StopSignal":"KILL","Shell":["/bin/bash","-c"]},
 "architecture":"arm64","variant":"v8","os":"linux","rootfs":{"type":"layers","diff_ids":["` + diffA + `"]},"history":[{"created":"2020-01-02T03:04:05.6Z","created_by":"x"}],"os.version":"10","os.features":["f"]},
"Isolation":1,"NamespaceOptions":[{"Name":"user","Host":true,"Path":""}],"Capabilities":["CAP_CHOWN"],
"PrependedEmptyLayers":[{"created":"2021-01-02T03:04:05Z","created_by":"ENV Q=1","empty_layer":true}],"AppendedEmptyLayers":null,"Format":"application/vnd.oci.image.manifest.v1+json"}`

func TestFromBuildah(t *testing.T) {
	c, report, err := copydata.FromBuildah([]byte(buildahFile), origin(t, convert.OCI), ctr, "box")
	if err != nil || report != nil {
		t.Fatal(err, report)
	}
	d := c.Config().Docker()
	want := docker.Config{
		User: "u", ExposedPorts: map[string]struct{}{"80": {}}, Env: []string{"B=2"}, Entrypoint: []string{"/e"}, Cmd: []string{"/hello"},
		Volumes: map[string]struct{}{"/v": {}}, WorkingDir: "/w", Labels: map[string]string{"m": "1"}, StopSignal: "KILL",
		Healthcheck: &docker.Healthcheck{Test: []string{"CMD-SHELL", "true"}, Interval: 5}, OnBuild: []string{"RUN x"}, Shell: []string{"/bin/bash", "-c"},
		Hostname: "h", Domainname: "d",
	}
	if diff := cmp.Diff(want, *d.Config); diff != "" {
		t.Error(diff)
	}
	if d.Author != "me" || d.Comment != "cm" || d.Architecture != "arm64" || d.Variant != "v8" || d.OSVersion != "10" || d.OSFeatures[0] != "f" || d.ContainerConfig != nil {
		t.Errorf("%+v", d)
	}
	if len(d.History) != 2 || d.History[1].CreatedBy != "ENV Q=1" || !d.History[1].EmptyLayer {
		t.Errorf("%+v", d.History)
	}
	if c.CreatedBy() != "cb" || c.HistoryComment() != "hcFROM docker.io/library/x:1" || !maps.Equal(c.Annotations(), map[string]string{"who": "you"}) || c.MountPoint() != "/mnt/x" {
		t.Errorf("%q %q %v", c.CreatedBy(), c.HistoryComment(), c.Annotations())
	}
	// What buildah knows nothing of is still the image's.
	if got := string(document(t, c, convert.DockerV2S2)); !strings.Contains(got, "12345678901234567890123") || string(c.Source().Config) != config {
		t.Error(got)
	}
	dir := &copydata.Memory{}
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	if h := load(t, dir).History(); len(h) != 1 || h[0].What != "imported" || h[0].Members != nil {
		t.Errorf("%+v", h)
	}
}

func TestFromBuildahUnedited(t *testing.T) {
	for _, f := range []convert.Format{convert.OCI, convert.DockerV2S2} {
		o := image(t, f, `{"architecture":"amd64","os":"linux","config":{"Cmd":["c"]},`+rootfs+`}`, 1)
		c, _, err := copydata.FromBuildah([]byte(`{"type":"buildah 0.0.1","image":"x","image-id":"`+imgID+`","container-id":"`+ctr+`",
"ociv1":{"architecture":"amd64","os":"linux","config":{"Cmd":["c"]},"rootfs":{"type":"","diff_ids":null}},
"docker":{"created":"0001-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{"Cmd":["c"],"OnBuild":[],"Env":null,"Labels":null}}}`), o, ctr, "")
		if err != nil || c.Config().Edited() || c.CreatedBy() != "/bin/sh" || c.HistoryComment() != "FROM x" {
			t.Errorf("%s: %v %s", f, err, document(t, c, f))
		}
	}
}

func TestFromBuildahDisagreement(t *testing.T) {
	one := strings.Replace(buildahFile, `"Env":["B=2"],"Entrypoint"`, `"Env":["OCI=1"],"Entrypoint"`, 1)
	one = strings.Replace(one, `"AppendedEmptyLayers":null`, `"AppendedEmptyLayers":[{"created_by":"later"}]`, 1)
	c, report, err := copydata.FromBuildah([]byte(one), origin(t, convert.OCI), ctr, "")
	if err != nil || len(report) != 2 || report[0].Path != "ociv1" || report[1].Path != "history" {
		t.Fatal(err, report)
	}
	if d := c.Config().Docker(); d.Config.Env[0] != "OCI=1" || d.Config.Shell[0] != "/bin/bash" || d.History[2].CreatedBy != "later" {
		t.Errorf("%+v", d)
	}
}

func TestFromBuildahScratch(t *testing.T) {
	c, _, err := copydata.FromBuildah([]byte(`{"type":"buildah 0.0.1","image-id":"","container-id":"`+ctr+`",
"ociv1":{"created":"2026-01-02T03:04:05Z","architecture":"arm64","os":"linux","config":{},"rootfs":{"type":"","diff_ids":null}},
"docker":{"created":"2026-01-02T03:04:05Z","architecture":"arm64","os":"linux","config":{"OnBuild":[]}}}`), copydata.Origin{}, ctr, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(document(t, c, convert.OCI)); got != `{"architecture":"arm64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}` || c.HistoryComment() != "" {
		t.Error(got)
	}
}

// runtimeFile is what podman 4.3 writes when it starts a container.
const runtimeFile = `{"ociVersion":"1.0.2-dev","process":{"terminal":true,"user":{"uid":12,"gid":13,"additionalGids":[13]},"args":["/e","a"],
"env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","TERM=xterm","container=podman","HTTP_PROXY=http://SECRET@proxy","X=1","HOSTNAME=hh"],"cwd":"/w"},
"root":{"path":"/x"},"hostname":"hh","mounts":[],"annotations":{"an":"v","io.podman.annotations.init":"FALSE","org.opencontainers.image.stopSignal":"9"},"linux":{"namespaces":[{"type":"uts"}]}}`

func runtimeWith(t *testing.T, imageConfig, process, rest string) (*copydata.CopyData, convert.Report) {
	t.Helper()
	o := image(t, convert.OCI, `{"architecture":"amd64","os":"linux","config":`+imageConfig+`,`+rootfs+`}`, 1)
	c, report, err := copydata.FromRuntime(copydata.Podman, []byte(`{"process":`+process+rest+`}`), o, ctr, "box")
	if err != nil {
		t.Fatal(err)
	}
	return c, report
}

func TestFromRuntime(t *testing.T) {
	for name, x := range map[string]struct{ image, process, rest, want string }{
		"as the image": {`{"Env":["A=1"],"Cmd":["c"],"User":"5","WorkingDir":"/w/"}`, `{"args":["c"],"env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","A=1"],"cwd":"/w","user":{"uid":5,"gid":7}}`,
			`,"hostname":"111111111111","linux":{"namespaces":[{"type":"uts"}]},"annotations":{"org.opencontainers.image.stopSignal":"15"}`, ""},
		"command":           {`{"Entrypoint":["e"],"Cmd":["c"]}`, `{"args":["e","x","y"],"cwd":"/"}`, "", `{"Entrypoint":["e"],"Cmd":["x","y"]}`},
		"command alone":     {`{"Cmd":["c"]}`, `{"args":["x"],"cwd":"/"}`, "", `{"Cmd":["x"]}`},
		"no command":        {`{"Entrypoint":["e"],"Cmd":["c"]}`, `{"args":["e"],"cwd":"/"}`, "", `{"Entrypoint":["e"]}`},
		"entrypoint":        {`{"Entrypoint":["e"],"Cmd":["c"]}`, `{"args":["x","y"],"cwd":"/"}`, "", `{"Cmd":["x","y"]}`},
		"init":              {`{"Entrypoint":["e"],"Cmd":["c"]}`, `{"args":["/run/podman-init","--","e","c"],"cwd":"/"}`, "", ""},
		"environment":       {`{"Env":["A=1","B=1","C=1"]}`, `{"env":["X=3","B=2","A=1"],"cwd":"/"}`, "", `{"Env":["A=1","B=2","X=3"]}`},
		"doubled variables": {`{"Env":["A=1","A=2","N"]}`, `{"env":["A=2"],"cwd":"/"}`, "", ""},
		"changed doubles":   {`{"Env":["A=1","A=2","N"]}`, `{"env":["A=3"],"cwd":"/"}`, "", `{"Env":["A=3","N"]}`},
		"engine's own":      {`{}`, `{"env":["TERM=xterm","container=oci","HOME=/root","HOSTNAME=x","https_proxy=p","NO_PROXY=x"],"cwd":"/"}`, "", ""},
		"its own of these":  {`{"Env":["TERM=dumb","HOME=/x"]}`, `{"env":["TERM=xterm","HOME=/y","PATH=/bin"],"cwd":"/"}`, "", `{"Env":["TERM=xterm","HOME=/y","PATH=/bin"]}`},
		"user":              {`{}`, `{"user":{"uid":12,"gid":0},"cwd":"/"}`, "", `{"User":"12:0"}`},
		"root again":        {`{"User":"www"}`, `{"user":{"uid":0,"gid":0},"cwd":"/"}`, "", `{"User":"0:0"}`},
		"a named user":      {`{"User":"www"}`, `{"user":{"uid":33,"gid":33},"cwd":"/"}`, "", ""},
		"group":             {`{"User":"5:6"}`, `{"user":{"uid":5,"gid":7},"cwd":"/"}`, "", `{"User":"5:7"}`},
		"directory":         {`{}`, `{"cwd":"/x"}`, "", `{"WorkingDir":"/x"}`},
		"back to the root":  {`{"WorkingDir":"/x"}`, `{"cwd":"/"}`, "", `{"WorkingDir":"/"}`},
		"host name":         {`{}`, `{"cwd":"/"}`, `,"hostname":"h","linux":{"namespaces":[{"type":"uts"}]}`, `{"Hostname":"h"}`},
		"the host's name":   {`{}`, `{"cwd":"/"}`, `,"hostname":"h"`, ""},
		"signal":            {`{"StopSignal":"SIGKILL"}`, `{"cwd":"/"}`, `,"annotations":{"org.opencontainers.image.stopSignal":"9"}`, ""},
		"another signal":    {`{"StopSignal":"SIGKILL"}`, `{"cwd":"/"}`, `,"annotations":{"org.opencontainers.image.stopSignal":"2"}`, `{"StopSignal":"2"}`},
	} {
		c, _ := runtimeWith(t, x.image, x.process, x.rest)
		var want, got any
		got = members(t, document(t, c, convert.OCI))["config"]
		if x.want == "" {
			x.want = x.image
			if c.Config().Edited() {
				t.Errorf("%s: edited", name)
			}
		}
		if err := json.Unmarshal([]byte(x.want), &want); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
}

func TestFromRuntimeReport(t *testing.T) {
	c, report, err := copydata.FromRuntime(copydata.Podman, []byte(runtimeFile), origin(t, convert.OCI), ctr, "box")
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, change := range report {
		text += change.String() + "\n"
	}
	if strings.Contains(text, "SECRET") || !strings.Contains(text, "HTTP_PROXY is left out") || !strings.Contains(text, "if there are any: X") || !strings.Contains(text, "health check") {
		t.Error(text)
	}
	if !maps.Equal(c.Annotations(), map[string]string{"who": "me", "an": "v"}) || c.Config().Docker().Config.Hostname != "hh" || c.Config().Docker().Config.StopSignal != "9" {
		t.Errorf("%v", c.Annotations())
	}
	// A pod's host name and annotations say nothing about one container.
	c, _, err = copydata.FromRuntime(copydata.CRIO, []byte(runtimeFile), origin(t, convert.OCI), ctr, "box")
	if err != nil || !maps.Equal(c.Annotations(), map[string]string{"who": "me"}) || c.Config().Docker().Config.Hostname != "" {
		t.Errorf("%v %v", err, c.Annotations())
	}
	// Never started: the image, and a word that this may not be all.
	c, report, err = copydata.FromRuntime(copydata.Podman, nil, origin(t, convert.OCI), ctr, "box")
	if err != nil || c.Config().Edited() || len(report) != 1 || report[0].Kind != convert.Warning {
		t.Errorf("%v %v", err, report)
	}
}

// Every member of the files of other tools: missing, null or of another type, too long, of another container.
func TestForeignFilesAreNotTrusted(t *testing.T) {
	big := strings.Repeat(" ", copydata.MaxSize)
	for kind, text := range map[string]string{"buildah": buildahFile, "runtime": runtimeFile} {
		read := func(data string) error {
			var err error
			if kind == "buildah" {
				_, _, err = copydata.FromBuildah([]byte(data), origin(t, convert.OCI), ctr, "n")
			} else {
				_, _, err = copydata.FromRuntime(copydata.Podman, []byte(data), origin(t, convert.OCI), ctr, "n")
			}
			if err == nil {
				return nil
			}
			if s := err.Error(); kimg.ClassOf(err) != kimg.ErrState || strings.ContainsAny(s, "\n\x1b") || strings.Contains(s, "SECRET") || len(s) > 400 {
				t.Errorf("%s: %s: %q", kind, kimg.ClassOf(err), s)
			}
			return err
		}
		var good map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &good); err != nil {
			t.Fatal(err)
		}
		for member := range good {
			for _, value := range []string{"", "null", "true", "-1", `"SECRET\u001b\n"`, `["SECRET"]`, `{"SECRET":{"SECRET":1}}`, "[null]", "{}"} {
				bad := maps.Clone(good)
				if bad[member] = json.RawMessage(value); value == "" {
					delete(bad, member)
				}
				data, err := json.Marshal(bad)
				if err != nil {
					t.Fatal(err)
				}
				_ = read(string(data)) // fine, or class state
			}
		}
		bad := []string{"", "null", "[]", "x", text + text, text + big, text[:len(text)/2]}
		if kind == "buildah" {
			bad = append(bad, "{}", strings.Replace(text, ctr, other, 1), strings.Replace(text, imgID, other, 1), strings.Replace(text, "buildah 0.0.1", "SECRET", 1),
				strings.Replace(text, `"image":"`, `"image":"\u001bSECRET`, 1),
				strings.ReplaceAll(text, diffA, "sha256:"+other), strings.Replace(text, `"mountpoint":"/mnt/x"`, `"mountpoint":"/../SECRET"`, 1), strings.Replace(text, `"type"`, `"type":"x","type"`, 1))
		} else {
			bad = append(bad, "{}", `{"process":null}`)
		}
		for _, data := range bad {
			if read(data) == nil {
				t.Errorf("%s accepted: %.60s", kind, data)
			}
		}
	}
}
