package layerdiff_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/layerdiff/view"
)

const shift, size = 33000, 32000 // an ordinary user has these ids too; none is both in the container and on the host

// ids is the map of a rootless container: its root is an ordinary user of the host.
var ids = layerdiff.IDMap{{Container: 0, Host: shift, Size: size}}

// owned is one tree as the host stores it for a container whose ids are shifted by n.
func owned(n int) testimage.Tree {
	u := uint32(n)
	return testimage.Tree{
		{Path: "d", Type: 'd', Mode: 0o2755, UID: n, GID: n + 5, Xattrs: map[string]string{
			"system.posix_acl_default": testimage.ACL(0o750, map[uint32]uint16{u + 1000: 7}, map[uint32]uint16{u + 50: 5})}},
		{Path: "d/acl", Mode: 0o640, UID: n + 1000, GID: n + 1001, Data: "x", Xattrs: map[string]string{
			"system.posix_acl_access": testimage.ACL(0o640, map[uint32]uint16{u: 6, u + 7: 4}, map[uint32]uint16{u + 8: 4})}},
		{Path: "d/cap", Mode: 0o755, UID: n, GID: n, Data: "x", Xattrs: map[string]string{
			"security.capability": testimage.Capability(1<<10, u)}},
		{Path: "d/setuid", Mode: 0o6755, UID: n, GID: n, Fill: 300 << 10},
		{Path: "link", Type: 'l', Link: "d", UID: n + 3, GID: n},
		{Path: "pipe", Type: 'p', Mode: 0o600, UID: n + size - 1, GID: n},
	}
}

// A container with id maps gives the layer that one without gives: owners, access lists and capabilities are the
// container's.
func TestIDMaps(t *testing.T) {
	host := upper(t, owned(0))
	mapped := upper(t, owned(shift))
	for _, dir := range []string{host.Upper, mapped.Upper} { // they inherited the default list
		must(t, unix.Lremovexattr(filepath.Join(dir, "d/setuid"), "system.posix_acl_access"),
			unix.Lremovexattr(filepath.Join(dir, "d/cap"), "system.posix_acl_access"),
			os.Chmod(filepath.Join(dir, "d/cap"), 0o755), unix.Chmod(filepath.Join(dir, "d/setuid"), 0o6755))
	}
	o := layerdiff.Options{UIDs: ids, GIDs: ids, Links: true}
	_, want := staged(t, host, layerdiff.Options{})
	dir, got := staged(t, mapped, o)
	if got.DiffID != want.DiffID || fmt.Sprint(got.UIDs, got.GIDs) != "[0 3 1000 31999] [0 5 1001]" {
		t.Errorf("mapped %+v\nwant %+v", got, want)
	}
	same(t, "staged copy", snapshot(t, host.Upper, false), snapshot(t, dir, false))
	for c, err := range layerdiff.Changes(t.Context(), mapped, o) {
		if err != nil || c.Path == "/link" && (c.UID != 3 || c.Link != "d") {
			t.Errorf("%+v %v", c, err)
		}
	}
}

// Whatever the map has no place for is refused by name.
func TestUnmappableIDs(t *testing.T) {
	o := layerdiff.Options{UIDs: ids, GIDs: ids}
	for _, c := range []struct {
		name, text string
		node       testimage.Node
	}{
		{"owner", "owner 0 ", testimage.Node{GID: shift}},
		{"group", "group 7 ", testimage.Node{UID: shift, GID: 7}},
		{"directory", "owner 0 ", testimage.Node{Type: 'd', Mode: 0o755}},
		{"link", "owner 0 ", testimage.Node{Type: 'l', Link: "x"}},
		{"access list", "user 8,", testimage.Node{UID: shift, GID: shift, Xattrs: map[string]string{
			"system.posix_acl_access": testimage.ACL(0o640, map[uint32]uint16{8: 6}, nil)}}},
		{"default list", "group 8,", testimage.Node{Type: 'd', Mode: 0o700, UID: shift, GID: shift, Xattrs: map[string]string{
			"system.posix_acl_default": testimage.ACL(0o640, nil, map[uint32]uint16{8: 6})}}},
		{"capability", "not the container's root", testimage.Node{UID: shift, GID: shift, Xattrs: map[string]string{
			"security.capability": testimage.Capability(1, shift+1)}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.node.Path = "n"
			stack := upper(t, testimage.Tree{c.node})
			refused(t, stack, o, kimg.ErrUnsupported, c.text)
			refused(t, stack, o, kimg.ErrUnsupported, "/n: ")
		})
	}
	// Without a map a capability of another namespace's root is no capability of this root.
	stack := upper(t, testimage.Tree{{Path: "n", Xattrs: map[string]string{"security.capability": testimage.Capability(1, 5)}}})
	refused(t, stack, layerdiff.Options{}, kimg.ErrUnsupported, "/n: ")
}

// A lower layer may be stored with the host's ids or with the container's: an unmodified copy is recognised over both.
func TestUnmodifiedCopiesWithIDMaps(t *testing.T) {
	file := func(uid int) testimage.Tree {
		return testimage.Tree{{Path: "f", Mode: 0o644, UID: uid, GID: uid, Data: "x"}}
	}
	o := layerdiff.Options{UIDs: ids, GIDs: ids}
	for lower, empty := range map[int]bool{0: true, shift: true, 1: false, shift + 1: false} {
		l := upper(t, file(lower))
		if _, blob := layer(t, upper(t, file(shift), l.Upper), o); blob.Empty != empty {
			t.Errorf("lower owner %d: %+v", lower, blob)
		}
	}
	// Where an id can be read either way, the file counts as changed.
	both := layerdiff.IDMap{{Container: 0, Host: 10, Size: 100}}
	l := upper(t, file(20))
	if _, blob := layer(t, upper(t, file(20), l.Upper), layerdiff.Options{UIDs: both, GIDs: both}); blob.Empty {
		t.Error("owner 20 is 10 or 20 of the container, and was taken for unchanged")
	}
}

func TestIDMap(t *testing.T) {
	m := layerdiff.IDMap{{Container: 0, Host: 1000, Size: 1}, {Container: 1, Host: 100000, Size: 65535}}
	for host, want := range map[uint32]int64{1000: 0, 100000: 1, 165534: 65535, 165535: -1, 0: -1, 1001: -1, 1<<32 - 1: -1} {
		got, ok := m.ToContainer(host)
		if ok != (want >= 0) || ok && int64(got) != want {
			t.Errorf("%d: %d %v", host, got, ok)
		}
		if back, ok2 := m.ToHost(got); ok && (!ok2 || back != host) {
			t.Errorf("%d: back %d %v", host, back, ok2)
		}
	}
	if _, ok := (layerdiff.IDMap)(nil).ToContainer(1<<32 - 1); ok {
		t.Error("the id for none is an id")
	}
	if m.Identity() || !(layerdiff.IDMap{{5, 5, 9}}).Identity() {
		t.Error("identity")
	}
}

const inNamespace = "KIMG_TEST_LAYERDIFF_UPPER"

// Inside a user namespace, where stores of ordinary users live, the same tree gives the same layer.
func TestInUserNamespace(t *testing.T) {
	if dir := os.Getenv(inNamespace); dir != "" {
		stack := view.Stack{Upper: dir, XattrPrefix: view.UserPrefix}
		staging := filepath.Join(filepath.Dir(dir), "staging")
		must(t, os.Mkdir(staging, 0o755))
		blob, err := layerdiff.Stage(t.Context(), staging, nil, stack, layerdiff.Options{})
		must(t, err)
		again, err := layerdiff.Write(t.Context(), &bytes.Buffer{}, view.Stack{Upper: staging}, layerdiff.Options{SkipUnreadable: true})
		must(t, err)
		fmt.Println("digest", blob.DiffID, again.DiffID, len(again.LeftOut))
		unreadable := filepath.Join(filepath.Dir(dir), "unreadable")
		_, err = layerdiff.Write(t.Context(), &bytes.Buffer{}, view.Stack{Upper: unreadable}, layerdiff.Options{})
		fmt.Println("unreadable", kimg.Line(err))
		blob, err = layerdiff.Write(t.Context(), &bytes.Buffer{}, view.Stack{Upper: unreadable}, layerdiff.Options{SkipUnreadable: true})
		fmt.Println("skipped", blob.Entries, len(blob.LeftOut), err)
		return
	}
	testenv.Root(t)
	host := upper(t, owned(0))
	_, want := layer(t, host, layerdiff.Options{})
	dir := tempDir(t)
	must(t, os.Chmod(dir, 0o755), os.Chown(dir, shift, shift))
	mapped, unreadable := filepath.Join(dir, "upper"), filepath.Join(dir, "unreadable")
	must(t, os.Mkdir(mapped, 0o755), owned(shift).Write(mapped), os.Mkdir(unreadable, 0o755))
	must(t, testimage.Tree{
		{Path: "dir", Type: 'd', Mode: 0o700, UID: 1, GID: 1}, {Path: "file", Mode: 0o600, UID: 1, GID: 1}, {Path: "ok", Mode: 0o644},
	}.Write(unreadable))
	exe := filepath.Join(dir, "test")
	data, err := os.ReadFile("/proc/self/exe")
	must(t, err, os.WriteFile(exe, data, 0o755))
	cmd := exec.Command(exe, "-test.run=^TestInUserNamespace$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"="+mapped, "TMPDIR="+dir)
	cmd.Dir = dir
	idMap := []syscall.SysProcIDMap{{ContainerID: 0, HostID: shift, Size: size}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: idMap, GidMappings: idMap,
		GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, line := range []string{
		fmt.Sprintf("digest %s %s 0\n", want.DiffID, want.DiffID),
		"unreadable denied: /dir: it may not be read: ",
		"skipped 1 2 <nil>\n",
	} {
		if !strings.Contains(string(out), line) {
			t.Errorf("no line %q in\n%s", line, out)
		}
	}
}
