//go:build interop

package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/signature"
	imagestorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/types"
	"github.com/containers/storage"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

// TestChunkedPull: of a layer of a thousand files that kimg pushed as zstd:chunked, containers/image fetches little more than the
// one file that changed when the store has the layer as it was before, and has the whole tree.
func TestChunkedPull(t *testing.T) {
	testenv.Root(t)
	addr, dir := lab.Registry(t), lab.TempDir(t)
	registry := countBlobs(t, addr)
	from, to := lab.NewStore(t, ""), lab.NewStore(t, dir)
	conf := filepath.Join(dir, "registries.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "[[registry]]\nlocation = %q\ninsecure = true\n", addr), 0o644); err != nil {
		t.Fatal(err)
	}
	from.Env = append(from.Env, "CONTAINERS_REGISTRIES_CONF="+conf)
	from.Kimg("from", "--name", "c", "scratch")
	store, err := storage.GetStore(storage.StoreOptions{
		GraphRoot: to.Root, RunRoot: to.RunRoot, GraphDriverName: "overlay", PullOptions: map[string]string{"enable_partial_images": "true"},
	})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := signature.NewPolicyContext(&signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}})
	if err != nil {
		t.Fatal(err)
	}
	var whole int64 // what the first image took
	for _, change := range []string{"thousand", "thousandth"} {
		from.In("c", "change", "seed="+change, change)
		name := "localhost/" + change
		from.Kimg("commit", "--squash", "--compression", "zstd:chunked", "c", name, "docker://"+addr+"/"+change)
		src, err := docker.ParseReference("//" + registry.addr + "/" + change)
		if err != nil {
			t.Fatal(err)
		}
		dest, err := imagestorage.Transport.ParseStoreReference(store, name)
		if err != nil {
			t.Fatal(err)
		}
		registry.down.Store(0)
		sys := &types.SystemContext{DockerInsecureSkipTLSVerify: types.OptionalBoolTrue}
		if _, err := copy.Image(t.Context(), policy, dest, src, &copy.Options{SourceCtx: sys}); err != nil {
			t.Fatal(err)
		}
		if whole == 0 {
			whole = registry.down.Load()
		}
	}
	t.Logf("%d bytes, then %d", whole, registry.down.Load())
	if whole < 1000*16<<10 || registry.down.Load()*10 > whole*3 {
		t.Errorf("%d bytes were fetched for one file of a thousand, and %d for all", registry.down.Load(), whole)
	}
	// The library makes files in a directory after it has set the directory's time.
	tree := from.ImageTree("podman", "localhost/thousandth")
	untimed := func(tree string) string {
		return regexp.MustCompile(`(?m)( dir .*) t\d+$`).ReplaceAllString(tree, "$1")
	}
	same(t, "the image pulled in parts", untimed(tree), untimed(to.ImageTree("podman", "localhost/thousandth")))
	if _, err := store.Shutdown(false); err != nil {
		t.Error(err)
	}
	to.CheckClean()
	for _, partial := range []bool{false, true} {
		kimgPulls(t, registry, partial, tree)
	}
}

// kimgPulls: kimg fetches as little, and has the times of directories, too, when the store's configuration asks for it; else it fetches all.
func kimgPulls(t *testing.T, registry *counted, partial bool, want string) {
	to := lab.NewStore(t, "")
	conf := filepath.Join(lab.TempDir(t), "storage.conf")
	text := fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n[storage.options.pull_options]\nenable_partial_images = \"%v\"\n", to.Root, to.RunRoot, partial)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	to.Env = append(to.Env, "CONTAINERS_STORAGE_CONF="+conf)
	var took [2]int64
	for i, change := range []string{"thousand", "thousandth"} {
		registry.down.Store(0)
		to.Kimg("pull", "-q", "--tls-verify=false", "docker://"+registry.addr+"/"+change)
		took[i] = registry.down.Load()
	}
	same(t, fmt.Sprint("pulled by kimg, in parts: ", partial), want, to.ImageTree("podman", registry.addr+"/thousandth"))
	t.Logf("in parts: %v: %d bytes, then %d", partial, took[0], took[1])
	if part := took[1]*10 < took[0]*3; part != partial {
		t.Errorf("in parts: %v; %d bytes were fetched of the first, %d of the second", partial, took[0], took[1])
	}
	to.Sound("after kimg pulled")
	to.CheckClean()
}
