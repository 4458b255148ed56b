//go:build interop

package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

// saved makes an image of two layers, and an archive of it in a format.
func saved(t *testing.T, format string) (s *lab.Store, archive string) {
	t.Helper()
	s = lab.NewStore(t, "")
	s.Kimg("import", lab.SmallBase(t), "localhost/base")
	s.Kimg("from", "--name", "c", "localhost/base")
	s.In("c", "change", "one", "two")
	s.Kimg("commit", "--timestamp", "1000000000", "--rm", "c", "localhost/app:1")
	archive = filepath.Join(lab.TempDir(t), "app.tar")
	s.Kimg("save", "--format", format, "-o", archive, "localhost/app:1")
	return s, archive
}

// TestSavedArchives: podman and skopeo take every archive that kimg saves, and kimg what they give back: the same image with the same tree.
func TestSavedArchives(t *testing.T) {
	for _, format := range []string{"hybrid", "oci-archive", "docker-archive"} {
		t.Run(format, func(t *testing.T) {
			s, archive := saved(t, format)
			id, want := inspected(t, s, "localhost/app:1").ID, s.ImageTree("buildah", "localhost/app:1")
			other := lab.NewStore(t, "")
			if out := other.Peer("podman", "load", "-i", archive); !strings.Contains(out, "localhost/app:1") {
				t.Errorf("podman load: %s", out)
			}
			if got := inspected(t, other, "localhost/app:1").ID; got != id {
				t.Errorf("podman has image %s, saved was %s", got, id)
			}
			same(t, "podman", want, other.ImageTree("buildah", "localhost/app:1"))

			transport, dir := "oci-archive:", lab.TempDir(t)
			if format == "docker-archive" {
				transport = "docker-archive:"
			}
			lab.Skopeo(t, "copy", transport+archive, "oci-archive:"+dir+"/o.tar:localhost/app:1")
			if format != "hybrid" {
				return // the way back once
			}
			lab.Skopeo(t, "copy", transport+archive, "docker-archive:"+dir+"/d.tar:localhost/app:1")
			lab.Skopeo(t, "copy", transport+archive, "dir:"+dir+"/dir")
			for _, from := range []string{"docker-archive", "oci-archive"} {
				other.Peer("podman", "save", "-q", "--format", from, "-o", filepath.Join(dir, "podman-"+from), "localhost/app:1")
			}
			for _, in := range []string{"o.tar", "d.tar", "dir", "podman-docker-archive", "podman-oci-archive"} {
				mine := lab.NewStore(t, "")
				out := mine.Kimg("load", "-i", filepath.Join(dir, in))
				name := "localhost/app:1"
				if in == "dir" {
					name = strings.TrimPrefix(out, "Loaded image ID: sha256:")
				} else if out != "Loaded image: "+name {
					t.Errorf("%s: %s", in, out)
				}
				same(t, in, want, mine.ImageTree("buildah", name))
				mine.CheckClean()
			}
		})
	}
}

// TestSaveIsTheSame: saved twice, and from another store, an image gives the same bytes.
func TestSaveIsTheSame(t *testing.T) {
	s, archive := saved(t, "hybrid")
	other := lab.NewStore(t, "")
	other.Kimg("load", "-i", archive)
	want, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	for i, from := range []*lab.Store{s, other} {
		again := filepath.Join(lab.TempDir(t), "again.tar")
		from.Kimg("save", "-o", again, "localhost/app:1")
		if got, err := os.ReadFile(again); err != nil || string(got) != string(want) {
			t.Errorf("store %d: other bytes, %v", i, err)
		}
	}
}

// dockerd runs Debian's Docker on a daemon of the test's own, without a network; another docker may come first in PATH.
func dockerd(t *testing.T) func(args ...string) string {
	t.Helper()
	testenv.Root(t)
	testenv.Need(t, "dockerd", "/usr/bin/docker")
	dir := lab.TempDir(t)
	socket := "unix://" + dir + "/sock"
	daemon := exec.Command("dockerd", "--host", socket, "--data-root", dir+"/data", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid",
		"--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--log-level=warn")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() { _ = daemon.Wait(); close(gone) }()
	t.Cleanup(func() { // it ends its containerd itself, unless it is killed
		_ = daemon.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-gone:
		case <-time.After(time.Minute):
			t.Error("dockerd does not end")
			_ = daemon.Process.Kill()
			<-gone
		}
		lab.Run(t, nil, "umount", "-q", "-R", dir+"/data/overlay2", dir+"/exec")
	})
	for end, running := time.Now().Add(3*time.Minute), true; running && time.Now().Before(end); {
		if lab.Run(t, nil, "/usr/bin/docker", "--host", socket, "version").Code == 0 {
			return func(args ...string) string {
				return lab.Must(t, nil, append([]string{"/usr/bin/docker", "--host", socket}, args...)...)
			}
		}
		select {
		case <-gone:
			running = false
		case <-time.After(100 * time.Millisecond):
		}
	}
	text, _ := os.ReadFile(log.Name())
	t.Fatalf("dockerd does not answer\n%s", text)
	return nil
}

// TestDocker: docker load takes what kimg saves, also several images and several platforms, and kimg what docker save gives.
func TestDocker(t *testing.T) {
	run := dockerd(t)
	for _, format := range []string{"hybrid", "docker-archive"} {
		s, archive := saved(t, format)
		id, want := inspected(t, s, "localhost/app:1").ID, s.ImageTree("buildah", "localhost/app:1")
		if out := run("load", "-i", archive); !strings.Contains(out, "Loaded image: localhost/app:1") {
			t.Errorf("docker load: %s", out)
		}
		if got := run("inspect", "--format", "{{.Id}}", "localhost/app:1"); got != "sha256:"+id {
			t.Errorf("docker has image %s, saved was %s", got, id)
		}
		back := filepath.Join(lab.TempDir(t), "docker.tar")
		run("save", "-o", back, "localhost/app:1")
		mine := lab.NewStore(t, "")
		if out := mine.Kimg("load", "-i", back); out != "Loaded image: localhost/app:1" {
			t.Errorf("kimg load: %s", out)
		}
		if got := inspected(t, mine, "localhost/app:1").ID; got != id {
			t.Errorf("kimg has image %s, saved was %s", got, id)
		}
		same(t, "docker save", want, mine.ImageTree("buildah", "localhost/app:1"))
		run("rmi", "localhost/app:1")
	}
	s := lab.NewStore(t, "")
	ids := images(t, s, "linux/amd64", "linux/arm64")
	s.Kimg("tag", ids[0], "localhost/one:1")
	s.Kimg("tag", ids[1], "localhost/two:1")
	archive := filepath.Join(lab.TempDir(t), "two.tar")
	s.Kimg("save", "-o", archive, "localhost/one:1", "localhost/two:1")
	if out := run("load", "-i", archive); !strings.Contains(out, "localhost/one:1") || !strings.Contains(out, "localhost/two:1") {
		t.Errorf("docker load: %s", out)
	}
}
