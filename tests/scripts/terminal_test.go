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

// screen is what was drawn. At the first of it, a file appears.
type screen struct {
	text bytes.Buffer
	file string
}

func (s *screen) Write(p []byte) (int, error) {
	if s.text.Len() == 0 {
		if err := os.WriteFile(s.file, nil, 0o600); err != nil {
			return 0, err
		}
	}
	return s.text.Write(p)
}

// onTerminal runs a command with a terminal of a size as its standard error, and returns what it drew there. The file drawn appears
// in the lab's scratch directory with the first of it: what the command needs may wait for that, and so takes as long as it must.
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
	var stdout bytes.Buffer
	screen := screen{file: l.work + "/drawn"}
	check(t, os.RemoveAll(screen.file))
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
	return stdout.String(), screen.text.String(), code
}

// holding is a registry in memory whose blobs come and go when something was drawn. The repository refused takes none.
func (l *lab) holding(t *testing.T) (s *faults.Registry, host string) {
	s = &faults.Registry{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for strings.Contains(r.URL.Path, "/blobs/") && r.Method != "HEAD" && r.Context().Err() == nil {
			if _, err := os.Stat(l.work + "/drawn"); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if strings.HasPrefix(r.URL.Path, "/v2/refused/blobs/") {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return s, strings.TrimPrefix(server.URL, "http://")
}

// E11: on a terminal every step has a line and every layer a bar, errors and warnings come out whole, and what is quick is quiet.
func TestProgressOnATerminal(t *testing.T) {
	l := fixture(t)
	if out, drawn, code := l.onTerminal(t, 24, 80, binary, "commit", "--no-sync", "c1", "quick:1"); code != 0 || len(out) != 65 || strings.Contains(drawn, "failed") {
		t.Errorf("exit %d, %q, %q", code, out, drawn)
	}
	check(t, os.WriteFile(l.work+"/text", make([]byte, 1<<20), 0o644))
	l.must(t, "add", "c1", "text", "/srv/text")
	_, host := l.holding(t)
	slow := []string{binary, "commit", "--tls-verify=false", "c1", "slow:1", "oci:dest/layout:1", "docker://" + host + "/app:1"}
	out, drawn, code := l.onTerminal(t, 24, 100, slow...)
	if code != 0 || len(out) != 65 {
		t.Errorf("exit %d, %q", code, out)
	}
	for _, want := range []string{"layers ", "config ", "manifest ", "naming ", "layer new ", "oci:dest/layout:1: layers", "oci:dest/layout:1: naming", "/app:1: layers", " MB", "done"} {
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
	_, drawn, code = l.onTerminal(t, 24, 100, append(slow, "docker://"+host+"/refused:1")...)
	lines := strings.Split(strings.TrimSpace(drawn), "\r\n")
	if last := lines[len(lines)-1]; code != 1 || !strings.HasPrefix(last, "kimg: auth: ") {
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
	s, host := l.holding(t)
	img := testimage.NewImage(72, testimage.ImageOptions{Tars: [][]byte{small, layer.Bytes()}, Gzip: true})
	s.PutManifest("app", "1", img.Manifest, img.ManifestType)
	for _, blob := range [][]byte{img.Config, img.Layers[0].Blob, img.Layers[1].Blob} {
		s.PutBlob("app", blob)
	}
	remote := func(command string, args ...string) []string {
		return append([]string{binary, command, "--tls-verify=false"}, args...)
	}
	const wait = "until test -e drawn; do sleep .02; done"
	for _, c := range []struct {
		step string
		args []string
	}{
		{"copy", remote("copy", "docker://"+host+"/app:1", "dir:copied")},
		{"pull", remote("pull", host+"/app:1")},
		{"push", remote("push", host+"/app:1", host+"/other:1")},
		{"save", []string{"sh", "-c", "kimg save " + host + "/app:1 | (" + wait + "; cat >app.tar)"}},
		{"load", []string{"sh", "-c", "kimg rmi " + host + "/app:1 && (" + wait + "; cat app.tar) | kimg load"}},
	} {
		_, drawn, code := l.onTerminal(t, 24, 100, c.args...)
		if code != 0 || !strings.Contains(drawn, c.step+" ") || !strings.Contains(drawn, "layer ") || !strings.Contains(drawn, "done") || strings.Contains(drawn, "failed") {
			t.Errorf("%s: exit %d, %q", c.step, code, drawn)
		}
	}
	again := []string{binary, "copy", "dir:copied", "dir:again"}
	for _, c := range []struct {
		flag, want string
	}{{"--progress=plain", "dir:again: copy 0.0 MB done in "}, {"--progress=json", `"step":"copy"`}, {"--quiet", ""}, {"--progress=none", ""}} {
		check(t, os.RemoveAll(l.work+"/again"))
		if _, drawn, code := l.onTerminal(t, 24, 100, append(again[:len(again):len(again)], c.flag)...); code != 0 || !strings.Contains(drawn, c.want) || (drawn == "") != (c.want == "") || strings.Contains(drawn, "\x1b") {
			t.Errorf("%s: exit %d, %q", c.flag, code, drawn)
		}
	}
	if r := l.kimg(append(again[1:], "--progress=loud")...); r.code != 2 {
		t.Errorf("%+v", r)
	}
}
