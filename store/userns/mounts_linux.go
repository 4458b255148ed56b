package userns

import (
	"bufio"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// mount is one line of a mountinfo file, as far as it matters here.
type mount struct {
	id, parent int
	dev        string // major:minor
	root       string // the directory of the file system that is mounted
	point      string // where
	fstype     string
	slave      bool // it came, or follows one that came, from another namespace
}

// key identifies a mount among those of one namespace. Ids and device numbers are used again, and the names of directories
// change when the host renames or removes them; so names count only for the kind of mount a store makes.
func (m mount) key() string {
	key := strconv.Itoa(m.id) + " " + m.dev + " " + m.fstype
	if m.fstype == "overlay" || strings.HasPrefix(m.fstype, "fuse") {
		key += " " + m.point
	}
	return key
}

// mountsOf reads the mounts a process sees.
func mountsOf(pid int) ([]mount, error) {
	f, err := os.Open(procPath(pid, "mountinfo"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMounts(f)
}

// parseMounts reads the format of proc_pid_mountinfo(5). Paths stay escaped: they are compared, never opened.
func parseMounts(r io.Reader) ([]mount, error) {
	var out []mount
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // overlay's options name every layer
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		dash := slices.Index(f, "-")
		if dash < 6 || len(f) < dash+2 {
			continue
		}
		id, err1 := strconv.Atoi(f[0])
		parent, err2 := strconv.Atoi(f[1])
		if err1 != nil || err2 != nil {
			continue
		}
		m := mount{id: id, parent: parent, dev: f[2], root: f[3], point: f[4], fstype: f[dash+1]}
		for _, tag := range f[6:dash] {
			m.slave = m.slave || strings.HasPrefix(tag, "master:")
		}
		out = append(out, m)
	}
	return out, lines.Err()
}

// made returns the mounts that were made inside a namespace and that would be missed if it ended. before are the keys of
// the mounts that were there when the namespace was new.
func made(now []mount, before map[string]bool) []mount {
	byID := make(map[int]mount, len(now))
	for _, m := range now {
		byID[m.id] = m
	}
	var out []mount
	for _, m := range now {
		if !m.slave && !before[m.key()] && !ontoItself(m, byID[m.parent]) {
			out = append(out, m)
		}
	}
	return out
}

// forgetGone takes mounts that are gone out of a set of keys: who gets the same id later is another mount.
func forgetGone(before map[string]bool, now []mount) {
	there := keys(now)
	maps.DeleteFunc(before, func(key string, _ bool) bool { return !there[key] })
}

// keys returns the keys of mounts as a set.
func keys(list []mount) map[string]bool {
	out := make(map[string]bool, len(list))
	for _, m := range list {
		out[m.key()] = true
	}
	return out
}

// ontoItself reports whether a mount shows what is there without it: containers/storage's overlay driver binds its home
// directory onto itself in every namespace, and nothing is lost with that.
func ontoItself(m, parent mount) bool {
	if m.dev != parent.dev {
		return false
	}
	rel, ok := strings.CutPrefix(m.point, strings.TrimSuffix(parent.point, "/"))
	return ok && m.root == path.Join(parent.root, rel)
}
