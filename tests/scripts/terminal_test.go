package scripts

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/tests/faults"
)

// onTerminal runs a command with a terminal of a size as its standard error, and returns what it drew there.
func (l *lab) onTerminal(t *testing.T, rows, columns uint16, args ...string) (out, drawn string, code int) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		testenv.Skip(t, "no terminals: %v", err)
	}
	defer master.Close()
	check(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	check(t, err)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	check(t, err)
	check(t, unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}))
	cmd := exec.Command(args[0], args[1:]...)
	var stdout, screen bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = l.env, l.work, &stdout, slave
	check(t, cmd.Start())
	check(t, slave.Close())
	_, _ = io.Copy(&screen, master) // ends with an error when nobody has the terminal open
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		check(t, err)
	}
	return stdout.String(), screen.String(), code
}

// E11: on a terminal every step has a line and every layer a bar, errors and warnings come out whole, and what is quick is quiet.
func TestProgressOnATerminal(t *testing.T) {
	l := fixture(t)
	if out, drawn, code := l.onTerminal(t, 24, 80, binary, "commit", "--no-sync", "c1", "quick:1"); code != 0 || len(out) != 65 || strings.Contains(drawn, "failed") {
		t.Errorf("exit %d, %q, %q", code, out, drawn)
	}
	// A level that takes its time.
	var text bytes.Buffer
	for i := range 300_000 {
		fmt.Fprintln(&text, i*i)
	}
	check(t, os.WriteFile(l.work+"/text", text.Bytes(), 0o644))
	l.must(t, "add", "c1", "text", "/srv/text")
	slow := []string{binary, "commit", "--compression", "zstd", "--compression-level", "19", "c1", "slow:1", "oci:dest/layout:1"}
	out, drawn, code := l.onTerminal(t, 24, 100, slow...)
	if code != 0 || len(out) != 65 {
		t.Errorf("exit %d, %q", code, out)
	}
	for _, want := range []string{"layers ", "config ", "manifest ", "naming ", "layer new ", "oci:dest/layout:1: layers", "oci:dest/layout:1: naming", " MB", "done"} {
		if !strings.Contains(drawn, want) {
			t.Errorf("not drawn: %q", want)
		}
	}
	if strings.Contains(drawn, "failed") {
		t.Errorf("%q", drawn)
	}
	// Too small to draw on, and as words: lines only.
	for _, args := range [][]string{slow, append(slow[:len(slow):len(slow)], "--progress", "plain")} {
		rows := uint16(len(args) - len(slow))
		out, drawn, code = l.onTerminal(t, rows, rows*80, args...)
		if code != 0 || len(out) != 65 || strings.Contains(drawn, "\x1b") || !strings.Contains(drawn, "manifest done in ") {
			t.Errorf("exit %d, %q, %q", code, out, drawn)
		}
	}
	// One that fails: the error line is the last, whole.
	check(t, os.MkdirAll(l.work+"/taken/dir", 0o755))
	slow[5] = "18"
	_, drawn, code = l.onTerminal(t, 24, 100, append(slow, "dir:taken")...)
	lines := strings.Split(strings.TrimSpace(drawn), "\r\n")
	if last := lines[len(lines)-1]; code != 1 || !strings.HasPrefix(last, "kimg: exists: ") && !strings.HasPrefix(last, "kimg: invalid: ") {
		t.Errorf("exit %d, %q", code, drawn)
	}
	if !strings.Contains(drawn, "failed") {
		t.Errorf("%q", drawn)
	}
}

// B11, X22: images that move are drawn as well, from and to registries and archives, and --progress says how it is told.
func TestMovesOnATerminal(t *testing.T) {
	l := fixture(t)
	var layer bytes.Buffer // larger than a pipe
	tw := tar.NewWriter(&layer)
	check(t, tw.WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: 1 << 20}))
	_, err := tw.Write(make([]byte, 1<<20))
	check(t, errors.Join(err, tw.Close()))
	small := testimage.NewImage(71, testimage.ImageOptions{}).Layers[0].Tar
	s, img := &faults.Registry{}, testimage.NewImage(72, testimage.ImageOptions{Tars: [][]byte{small, layer.Bytes()}, Gzip: true})
	s.PutManifest("app", "1", img.Manifest, img.ManifestType)
	for _, blob := range [][]byte{img.Config, img.Layers[0].Blob, img.Layers[1].Blob} {
		s.PutBlob("app", blob)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") && (r.Method == "GET" || r.Method == "PUT") {
			time.Sleep(200 * time.Millisecond)
		}
		s.ServeHTTP(w, r)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	remote := func(command string, args ...string) []string {
		return append([]string{binary, command, "--tls-verify=false"}, args...)
	}
	for _, c := range []struct {
		step string
		args []string
	}{
		{"copy", remote("copy", "docker://"+host+"/app:1", "dir:copied")},
		{"pull", remote("pull", host+"/app:1")},
		{"push", remote("push", host+"/app:1", host+"/other:1")},
		{"save", []string{"sh", "-c", "kimg save " + host + "/app:1 | (sleep .5; cat >app.tar)"}},
		{"load", []string{"sh", "-c", "kimg rmi " + host + "/app:1 && (sleep .5; cat app.tar) | kimg load"}},
	} {
		_, drawn, code := l.onTerminal(t, 24, 100, c.args...)
		if code != 0 || !strings.Contains(drawn, c.step+" ") || !strings.Contains(drawn, "layer ") || !strings.Contains(drawn, "done") || strings.Contains(drawn, "failed") {
			t.Errorf("%s: exit %d, %q", c.step, code, drawn)
		}
	}
	again := remote("copy", "docker://"+host+"/app:1", "dir:copied")
	for _, c := range []struct {
		flag, want string
	}{{"--progress=plain", "dir:copied: copy 0.0 MB done in "}, {"--progress=json", `"step":"copy"`}, {"--quiet", ""}, {"--progress=none", ""}} {
		check(t, os.RemoveAll(l.work+"/copied"))
		if _, drawn, code := l.onTerminal(t, 24, 100, append(again[:len(again):len(again)], c.flag)...); code != 0 || !strings.Contains(drawn, c.want) || (drawn == "") != (c.want == "") || strings.Contains(drawn, "\x1b") {
			t.Errorf("%s: exit %d, %q", c.flag, code, drawn)
		}
	}
	if r := l.kimg(append(again[1:], "--progress=loud")...); r.code != 2 {
		t.Errorf("%+v", r)
	}
}
