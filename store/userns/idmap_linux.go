package userns

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// extent is one line of an id map: size ids from inside on are size ids from outside on.
type extent struct{ inside, outside, size uint32 }

// maxExtents is the kernel's limit for the lines of one id map.
const maxExtents = 340

// subordinate reads the ranges of ids a file (/etc/subuid, /etc/subgid) gives to a user. Lines name the user by login name
// or by number; both are taken, in the order of the file. Lines that are not understood are left out, as newuidmap does.
func subordinate(path, login string, uid int) ([]extent, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseSubordinate(f, login, uid)
}

func parseSubordinate(r io.Reader, login string, uid int) ([]extent, error) {
	var out []extent
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(f) != 3 || (login == "" || f[0] != login) && f[0] != strconv.Itoa(uid) {
			continue
		}
		first, err1 := strconv.ParseUint(f[1], 10, 32)
		size, err2 := strconv.ParseUint(f[2], 10, 32)
		if err1 != nil || err2 != nil || size == 0 || first+size > math.MaxUint32 {
			continue
		}
		out = append(out, extent{outside: uint32(first), size: uint32(size)})
	}
	return out, lines.Err()
}

// layOut builds the map of a namespace: the user is id 0, the subordinate ranges follow one after the other from 1. A range
// that overlaps an earlier one, or holds the user's own id, would make the kernel refuse the whole map and is left out.
func layOut(own int, ranges []extent) []extent {
	out := []extent{{inside: 0, outside: uint32(own), size: 1}}
	next := uint32(1)
	for _, r := range ranges {
		if len(out) == maxExtents || uint64(next)+uint64(r.size) > math.MaxUint32 || overlaps(out, r) {
			continue
		}
		r.inside = next
		next += r.size
		out = append(out, r)
	}
	return out
}

func overlaps(have []extent, r extent) bool {
	for _, h := range have {
		if r.outside < h.outside+h.size && h.outside < r.outside+r.size {
			return true
		}
	}
	return false
}

// loginName returns the user's name, or nothing when nobody knows it; then only lines with the number count. Without cgo
// Go reads /etc/passwd only, so users of a directory service are asked for with getent.
func loginName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	out, err := exec.Command("getent", "passwd", strconv.Itoa(uid)).Output()
	if err != nil {
		return ""
	}
	name, _, _ := strings.Cut(string(out), ":")
	return name
}

// idMaps are the maps of a namespace and how to set them.
type idMaps struct {
	uids, gids           []extent
	newuidmap, newgidmap string // the helper programs; empty: only a single id, written by ourselves
	single               string // why only a single id is mapped; empty: the full map
}

// planMaps finds out which ids this user may map.
func planMaps(uid, gid int) (idMaps, error) {
	login := loginName(uid)
	su, err := subordinate("/etc/subuid", login, uid)
	if err != nil {
		return idMaps{}, err
	}
	sg, err := subordinate("/etc/subgid", login, uid)
	if err != nil {
		return idMaps{}, err
	}
	if login == "" {
		login = strconv.Itoa(uid)
	}
	m := idMaps{uids: layOut(uid, su), gids: layOut(gid, sg)}
	var err1, err2 error
	m.newuidmap, err1 = exec.LookPath("newuidmap")
	m.newgidmap, err2 = exec.LookPath("newgidmap")
	switch {
	case len(m.uids) == 1:
		m.single = fmt.Sprintf("no range for %s in /etc/subuid", login)
	case len(m.gids) == 1:
		m.single = fmt.Sprintf("no range for %s in /etc/subgid", login)
	case err1 != nil || err2 != nil:
		m.single = "newuidmap or newgidmap is not installed"
	case noNewPrivileges():
		m.single = "no_new_privs is set, so newuidmap cannot work"
	}
	if m.single != "" {
		m = idMaps{uids: m.uids[:1], gids: m.gids[:1], single: m.single}
	}
	return m, nil
}

func noNewPrivileges() bool {
	data, err := os.ReadFile("/proc/self/status")
	return err == nil && strings.Contains(string(data), "\nNoNewPrivs:\t1\n")
}

// set has the helpers write the maps of a process that was just cloned into a new user namespace. A single id needs none: it
// is mapped by [idMaps.atClone].
func (m idMaps) set(pid int) error {
	if m.single != "" {
		return nil
	}
	if err := runHelper(m.newuidmap, pid, m.uids); err != nil {
		return err
	}
	return runHelper(m.newgidmap, pid, m.gids)
}

// atClone asks for a single id to be mapped before the child executes anything, so that it never loses its capabilities: with
// no_new_privs it could not get them back. Such a namespace gives up setgroups, or the kernel would not accept the map.
func (m idMaps) atClone(attr *syscall.SysProcAttr) {
	if m.single == "" {
		return
	}
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(m.uids[0].outside), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(m.gids[0].outside), Size: 1}}
}

func runHelper(program string, pid int, extents []extent) error {
	args := []string{strconv.Itoa(pid)}
	for _, e := range extents {
		for _, n := range []uint32{e.inside, e.outside, e.size} {
			args = append(args, strconv.FormatUint(uint64(n), 10))
		}
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %.256s", program, err, strings.TrimSpace(string(out)))
	}
	return nil
}
