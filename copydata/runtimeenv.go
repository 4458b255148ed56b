package copydata

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kimg/kimg"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// env is the image's environment with what the container was started with over it: variables keep the image's order,
// new ones follow, those that were unset are gone.
func (t *started) env(image []string) []string {
	now, was := map[string]string{}, map[string]string{}
	for _, v := range t.Process.Env {
		name, _, _ := strings.Cut(v, "=")
		now[name] = v
	}
	for _, v := range image {
		name, _, _ := strings.Cut(v, "=")
		was[name] = v
	}
	var env, news []string
	for _, v := range image {
		name, _, assigned := strings.Cut(v, "=")
		value, set := now[name]
		switch {
		case !assigned, value == was[name]: // a variable without a value is the host's matter
			env = append(env, v)
		case set && v == was[name]:
			env = append(env, value)
		}
	}
	for _, v := range t.Process.Env {
		name, value, _ := strings.Cut(v, "=")
		if _, known := was[name]; known || now[name] != v || t.engineMade(name, value) || slices.Contains(env, v) {
			continue
		}
		env, news = append(env, v), append(news, name)
	}
	if len(news) > 0 {
		t.warn("config.Env", fmt.Sprintf("taken from how the container was started, secrets among them if there are any: %s", kimg.Escape(strings.Join(news, " "), 200)))
	}
	return env
}

// engineMade tells whether a variable that the image does not have is one the engine puts into every container: what is
// true of its run, or of this host, and wrong in an image.
func (t *started) engineMade(name, value string) bool {
	switch strings.ToLower(name) {
	case "http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy":
		t.warn("config.Env", name+" is left out: the proxy is a setting of the host")
		return true
	}
	switch name {
	case "HOSTNAME", "container", "NSS_SDB_USE_CACHE":
		return true
	case "TERM":
		return value == "xterm"
	case "PATH":
		return value == defaultPath
	case "HOME":
		return value == "/" || value == "/root"
	}
	return strings.HasPrefix(name, "KUBERNETES_")
}
