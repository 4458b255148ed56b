package commit_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/tests/faults"
)

func references(t *testing.T, list ...string) []types.ImageReference {
	t.Helper()
	var refs []types.ImageReference
	for _, text := range list {
		ref, err := image.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	return refs
}

// listing is every file below a directory with what is in it.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			fmt.Fprintf(&all, "%s %s", path, info.Mode())
		}
		if err == nil && e.Type().IsRegular() {
			var data []byte
			data, err = os.ReadFile(path)
			fmt.Fprintf(&all, " %v %s", info.ModTime(), digest.FromBytes(data))
		}
		all.WriteString("\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestCopyEverywhereOrNowhere: the last destination, a registry, first refuses the manifest and then takes it.
func TestCopyEverywhereOrNowhere(t *testing.T) {
	s, dir := newStore(t), t.TempDir()
	c := container(t, s, nil)
	edit(t, c, func(root string) { write(t, root, "f", strings.Repeat("hello ", 10000)) })
	other := references(t, "oci:"+dir+"/layout:other")
	if _, err := commit.Copy(t.Context(), s, c.ID, other, commit.Options{}, commit.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	r := &faults.Registry{Fault: &faults.Fault{Kind: "publish", Do: faults.Status(500, "")}}
	addr := serve(t, r)
	dests := references(t, "docker://"+addr+"/x:1", "oci:"+dir+"/layout:a", "oci:"+dir+"/layout:b", "oci:"+dir+"/new", "dir:"+dir+"/dir",
		"oci-archive:"+dir+"/o.tar", "docker-archive:"+dir+"/d.tar:x:1")
	o := commit.Options{Created: &day, Names: []string{"app"}}
	co := commit.CopyOptions{Retries: -1, System: system(t)}
	before := names(t, dir)
	for _, remove := range []bool{false, true} {
		o.Remove = remove
		_, err := commit.Copy(t.Context(), s, c.ID, dests, o, co)
		if kimg.ClassOf(err) != kimg.ErrNetwork || !strings.Contains(fmt.Sprint(err), "docker://"+addr+"/x:1") {
			t.Errorf("error %v", err)
		}
		if now := names(t, dir); now != before {
			t.Errorf("left behind:\n%s\nwas\n%s", now, before)
		}
		if all, err := s.Images(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("images %v, %v", all, err)
		}
		if _, err := s.Container(t.Context(), c.ID); err != nil {
			t.Error(err)
		}
	}
	r.Fault = nil
	made, err := commit.Copy(t.Context(), s, c.ID, dests, o, co)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Names()) != 1 || count(r.Asked(), "put") != 2 || len(made.Copies) != len(dests) || !made.Removed {
		t.Errorf("%v, %+v", r.Names(), made)
	}
	if img, err := s.Resolve(t.Context(), "app", nil); err != nil || img.ID != made.ImageID {
		t.Error(err)
	}
	checker := image.New(image.Options{Sys: system(t)})
	defer checker.Close()
	for _, copied := range made.Copies[:len(dests)-1] {
		v, err := checker.Validate(t.Context(), references(t, copied.Name)[0], false)
		if err != nil || !v.Valid() || v.Digest != copied.ManifestDigest || v.ConfigDigest.Encoded() != made.ImageID || v.Format != copied.Format {
			t.Errorf("%s: %+v, %v", copied.Name, v, err)
		}
	}
}

// A second push sends nothing but a manifest: the layers remember what they were compressed to.
func TestSecondPushSendsNothing(t *testing.T) {
	s := newStore(t)
	c := container(t, s, nil)
	edit(t, c, func(root string) { write(t, root, "f", strings.Repeat("hello ", 10000)) })
	r := &faults.Registry{}
	addr := serve(t, r)
	co := commit.CopyOptions{System: system(t)}
	o := commit.Options{Created: &day, Names: []string{"app"}}
	for i, want := range []int{2, 0} {
		if _, err := commit.Copy(t.Context(), s, c.ID, references(t, fmt.Sprintf("docker://%s/x:%d", addr, i)), o, co); err != nil {
			t.Fatal(err)
		}
		if asked := r.Asked(); count(asked, "post") != want || count(asked, "publish") != 1 {
			t.Errorf("push %d: %+v", i+1, asked)
		}
	}
}

// names lists what is below a directory, with the content of documents.
func names(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	for line := range strings.Lines(listing(t, dir)) {
		words := strings.Fields(line)
		all.WriteString(words[0])
		if strings.HasSuffix(words[0], ".json") {
			all.WriteString(" " + words[len(words)-1])
		}
		all.WriteString("\n")
	}
	return all.String()
}

// TestCopyFailsHalfWay (E17, E18): whatever ends a copy, its class is known, its destination is named, and nothing of it is left anywhere.
func TestCopyFailsHalfWay(t *testing.T) {
	s, dir := newStore(t), t.TempDir()
	c := container(t, s, nil)
	random := make([]byte, 2<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(random)
	edit(t, c, func(root string) { write(t, root, "f", string(random)) })
	write(t, dir, "keep", "x")
	tiny := filepath.Join(dir, "tiny")
	if err := os.Mkdir(tiny, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", tiny, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(tiny, 0) })
	write(t, tiny, "keep", "x")
	before := names(t, dir)
	addr := serve(t, &faults.Registry{Fault: &faults.Fault{Kind: "patch", Do: cut}})
	sys := system(t)
	for _, last := range []string{"docker://" + addr + "/x:1", "oci:" + tiny + "/l", "dir:" + tiny + "/d", "oci-archive:" + tiny + "/o", "docker-archive:" + tiny + "/a", "cancelled", "changed"} {
		ctx, cancel := context.WithCancel(t.Context())
		o := commit.Options{Names: []string{"app"}, Remove: true}
		co := commit.CopyOptions{System: sys, Retries: -1}
		class, named := kimg.ErrNoSpace, last
		list := []string{"oci:" + dir + "/first", last}
		switch last {
		case "docker://" + addr + "/x:1":
			class = kimg.ErrNetwork
		case "cancelled":
			list[1], class, named = "dir:"+dir+"/d", kimg.ErrInterrupted, ""
			o.Progress = func(e commit.Event) {
				if e.Place == "dir:"+dir+"/d" && e.Step == commit.StepConfig {
					cancel()
				}
			}
		case "changed":
			list[1], class = "dir:"+dir+"/d", kimg.ErrBusy
			co.Compression = layerdiff.ZstdChunked // which the image library makes, from the container
			o.Progress = func(e commit.Event) {
				if e.Place == "" && e.Step == commit.StepConfig && e.End.IsZero() {
					edit(t, c, func(root string) { write(t, root, "f", "y") })
				}
			}
			named = list[0]
		}
		_, err := commit.Copy(ctx, s, c.ID, references(t, list...), o, co)
		cancel()
		if kimg.ClassOf(err) != class || !strings.Contains(fmt.Sprint(err), named) {
			t.Errorf("%s: %v is not %s", last, err, class)
		}
		if now := names(t, dir); now != before {
			t.Errorf("%s left behind:\n%s", last, difference(before, now))
		}
		if all, err := s.Images(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("%s: images %v, %v", last, all, err)
		}
	}
	if _, err := s.Container(t.Context(), c.ID); err != nil {
		t.Error(err)
	}
}

func TestCheckRefusesCombinations(t *testing.T) {
	for _, c := range []struct {
		dests string
		o     commit.Options
		co    commit.CopyOptions
		want  kimg.Class
	}{
		{"oci:a:1 oci:a:2 dir:b docker://x/y docker://x/y:2 docker-archive:c", commit.Options{}, commit.CopyOptions{}, ""},
		{"dir:b docker://x/y", commit.Options{Format: convert.DockerV2S2}, commit.CopyOptions{Compression: "gzip"}, ""},
		{"docker-archive:c", commit.Options{}, commit.CopyOptions{Compression: commit.Uncompressed}, ""},
		{"oci:a", commit.Options{Format: convert.DockerV2S2}, commit.CopyOptions{}, kimg.ErrInvalid},
		{"oci-archive:a", commit.Options{Format: convert.DockerV2S2}, commit.CopyOptions{}, kimg.ErrInvalid},
		{"docker-archive:a", commit.Options{Format: convert.OCI}, commit.CopyOptions{}, kimg.ErrInvalid},
		{"docker-archive:a", commit.Options{}, commit.CopyOptions{Compression: "gzip"}, kimg.ErrInvalid},
		{"oci:a:1 oci:a:1", commit.Options{}, commit.CopyOptions{}, kimg.ErrInvalid},
		{"dir:a dir:a", commit.Options{}, commit.CopyOptions{}, kimg.ErrInvalid},
		{"oci-archive:a:1 oci-archive:a:2", commit.Options{}, commit.CopyOptions{}, kimg.ErrInvalid},
		{"containers-storage:x", commit.Options{}, commit.CopyOptions{}, kimg.ErrUnsupported},
	} {
		if err := commit.Check(references(t, strings.Fields(c.dests)...), c.o, c.co); kimg.ClassOf(err) != c.want {
			t.Errorf("%s: %v is not %q", c.dests, err, c.want)
		}
	}
}

// E3, E11: Every step begins and ends once at every place, in order; the one that fails says why.
func TestProgress(t *testing.T) {
	s, dir := newStore(t), t.TempDir()
	c := container(t, s, nil)
	edit(t, c, func(root string) { write(t, root, "f", "x") })
	run := func(dests ...string) (map[string]string, error) {
		var mu sync.Mutex
		seen := map[string]string{}
		_, err := commit.Copy(t.Context(), s, c.ID, references(t, dests...), commit.Options{
			Created: &day, Names: []string{"app"}, Progress: func(e commit.Event) {
				mu.Lock()
				defer mu.Unlock()
				switch {
				case e.Layer != "":
				case e.Err != nil:
					seen[e.Place] += "!"
				case !e.End.IsZero():
					seen[e.Place] += ")"
				case strings.HasSuffix(seen[e.Place], string(e.Step)+"("): // on a slow machine it is told that it goes on
				default:
					seen[e.Place] += string(e.Step) + "("
				}
			},
		}, commit.CopyOptions{})
		return seen, err
	}
	const all = "layers()config()manifest()naming()"
	dest := "oci:" + dir + "/l:1"
	if seen, err := run(dest); err != nil || len(seen) != 2 || seen[""] != all || seen[dest] != all {
		t.Errorf("%v, %v", seen, err)
	}
	write(t, dir, "busy/file", "x")
	if seen, err := run("dir:" + dir + "/busy"); err == nil || seen[""] != "layers(!" || seen["dir:"+dir+"/busy"] != "layers(!" {
		t.Errorf("%v, %v", seen, err)
	}
}

// E11: every layer that is made or copied begins and ends once at its place, and knows how much there is of it.
func TestLayerProgress(t *testing.T) {
	s, dir := newStore(t), t.TempDir()
	c := twoLayers(t, s)
	var mu sync.Mutex
	began, ended := map[string]int{}, map[string]commit.Event{}
	r, err := commit.Copy(t.Context(), s, c.ID, references(t, "oci:"+dir+"/a", "dir:"+dir+"/b"), commit.Options{Names: []string{"app"}, Progress: func(e commit.Event) {
		mu.Lock()
		defer mu.Unlock()
		key := e.Place + " " + e.Layer
		switch {
		case e.Layer == "":
		case e.End.IsZero() && e.Bytes == 0:
			began[key]++
		case !e.End.IsZero():
			ended[key] = e
		}
	}}, commit.CopyOptions{Compression: layerdiff.Zstd, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	for key, n := range began {
		if e := ended[key]; n != 1 || e.Err != nil || e.Bytes <= 0 || e.Total >= 0 && e.Bytes != e.Total || e.Step != commit.StepLayers {
			t.Errorf("%s began %d times, then %+v", key, n, e)
		}
	}
	for _, key := range []string{" " + commit.NewLayer, "oci:" + dir + "/a: " + r.DiffIDs[0].String()} {
		if began[key] != 1 || len(began) != 4 || len(ended) != 4 { // dir: gets both as they were made
			t.Errorf("%s is not in %v", key, began)
		}
	}
}

// A second commit of the same content at the same time writes nothing.
func TestSameCommitWritesNothing(t *testing.T) {
	s := newStore(t)
	c := container(t, s, nil)
	edit(t, c, func(root string) { write(t, root, "f", "x") })
	o := commit.Options{Names: []string{"app"}}
	_, first := into(t, s, c, o)
	before := listing(t, s.Storage().GraphRoot())
	_, again := into(t, s, c, o)
	if !again.LayerExisted || again.ImageID != first.ImageID || again.ManifestDigest != first.ManifestDigest {
		t.Errorf("%+v, then %+v", first, again)
	}
	if now := listing(t, s.Storage().GraphRoot()); now != before {
		t.Errorf("changed: %s", difference(before, now))
	}
}

func difference(before, now string) string {
	var out strings.Builder
	for line := range strings.Lines(before) {
		if !strings.Contains(now, line) {
			out.WriteString("- " + line)
		}
	}
	for line := range strings.Lines(now) {
		if !strings.Contains(before, line) {
			out.WriteString("+ " + line)
		}
	}
	return out.String()
}
