//go:build interop

package interop

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/tests/lab"
)

const (
	envCollect = "KIMG_COLLECT_SECONDS" // how long TestCollectionBesideBuilds goes on; 60
	envHolder  = "KIMG_TEST_HOLD"       // makes this program take a lease of an image, say so and wait
)

// hold is main of a process that has a lease and is going to be killed. Its arguments are a store and an image.
func hold(args []string) error {
	st, err := openStore(args[0], args[1])
	if err != nil {
		return err
	}
	l, err := st.Lease(context.Background(), store.LeaseOptions{Image: args[2], Owner: "holder"})
	if err != nil {
		return err
	}
	fmt.Println(l.ID())
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, l.Release(context.Background()))
}

func openStore(root, runRoot string) (*store.Store, error) {
	return store.Open(store.Options{Root: root, RunRoot: runRoot, Driver: "overlay", DriverOptions: []string{}, NoSync: true})
}

// collection is what the test knows of its store.
type collection struct {
	t      *testing.T
	s      *lab.Store
	until  time.Time
	counts [5]atomic.Int64 // builds, lost before they were held, collections, prunes, kills

	mu   sync.Mutex
	kept map[string]string // container or image id -> what its tree must hold
}

const (
	builds = iota
	lost
	collections
	prunes
	kills
)

// TestCollectionBesideBuilds builds, commits and exports in eight places at once, by commands and as a library, while kimg and podman
// remove in a loop what nobody uses. Nothing that is in use is lost; what a killed holder had is free.
func TestCollectionBesideBuilds(t *testing.T) {
	testenv.Root(t) // podman prunes rootless through a namespace of its own, which shows the same records
	testenv.Need(t, "podman", "runc", "go")
	seconds, err := strconv.Atoi(cmp.Or(os.Getenv(envCollect), "60"))
	if err != nil {
		t.Fatal(err)
	}
	s := lab.NewStore(t, "")
	s.Kimg("import", program(t, "sleeper", sleeper), "localhost/base")
	s.Kimg("import", lab.SmallBase(t), "localhost/leased")
	s.Kimg("lease", "add", "--ttl", "24h", "localhost/leased")
	s.Kimg("from", "--name", "old", "localhost/base")
	s.Peer("podman", "--runtime", "runc", "run", "-d", "--name", "live", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--network", "none", "localhost/base", "/sleeper")
	t.Cleanup(func() { s.Peer("podman", "rm", "-f", "-t", "0", "live") })

	c := &collection{t: t, s: s, until: time.Now().Add(time.Duration(seconds) * time.Second), kept: map[string]string{}}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() { c.again(builds, func(n int) { c.byCommand(fmt.Sprintf("c%d-%d", i, n), n%8 == 0) }) })
		wg.Go(func() { c.byLibrary(i) })
	}
	wg.Go(func() {
		c.again(collections, func(n int) {
			// Also what is young: kimg's builds say themselves what they count on.
			if r := s.Try("gc", "--filter", "until="+[]string{"0s", "24h"}[n%2]); r.Code != 0 {
				t.Errorf("gc: %s", r.Stderr)
			}
		})
	})
	wg.Go(func() {
		c.again(prunes, func(int) {
			if r := lab.Run(t, nil, "podman", "--root", s.Root, "--runroot", s.RunRoot, "--storage-driver", "overlay", "system", "prune", "-a", "-f"); r.Code != 0 {
				t.Logf("podman system prune: %s", r.Stderr) // it loses races with whoever takes what it was about to remove
			}
		})
	})
	wg.Go(func() { c.again(kills, func(n int) { c.kill(n) }) })
	wg.Wait()
	t.Logf("%d builds, %d lost before they were held, %d collections, %d prunes, %d holders killed, %d things kept",
		c.counts[builds].Load(), c.counts[lost].Load(), c.counts[collections].Load(), c.counts[prunes].Load(), c.counts[kills].Load(), len(c.kept))
	c.checkAll()
}

// again calls fn until the time is over.
func (c *collection) again(what int, fn func(n int)) {
	for n := 0; time.Now().Before(c.until) && !c.t.Failed(); n++ {
		fn(n)
		c.counts[what].Add(1)
	}
}

func (c *collection) keep(id, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept[id] = name
}

// run runs kimg, which has to succeed. Nothing it works on may be missing, but for an image that nobody held: then it is "".
func (c *collection) run(free bool, args ...string) string {
	r := c.s.Try(args...)
	if free && r.Code == 1 && strings.HasPrefix(r.Stderr, "kimg: notfound: ") {
		c.counts[lost].Add(1)
		return ""
	}
	if r.Code != 0 {
		c.t.Errorf("kimg %s: exit %d: %s", strings.Join(args, " "), r.Code, r.Stderr)
		return ""
	}
	return r.Stdout
}

// byCommand makes a container on the leased image, an image of it, and a lease of that, and exports both.
func (c *collection) byCommand(name string, keep bool) {
	file := filepath.Join(c.s.Root, "..", name)
	if err := os.WriteFile(file, []byte(name), 0o644); err != nil {
		c.t.Error(err)
		return
	}
	defer os.Remove(file)
	ctr := c.run(false, "from", "localhost/leased")
	if ctr == "" {
		return
	}
	c.run(false, "add", ctr, file, "/"+name)
	img := c.run(true, "commit", ctr) // podman may remove it before kimg has said its name
	lease := ""
	if img != "" {
		lease = c.run(true, "lease", "add", img)
	}
	if lease != "" && !strings.Contains(c.run(false, "export", img), name) {
		c.t.Errorf("%s: its file is not in the image", name)
	}
	if keep {
		c.keep(ctr, name)
		if lease != "" {
			c.keep(img, name)
		}
		return
	}
	c.run(false, "rm", ctr)
	if lease != "" {
		c.run(false, "lease", "rm", lease)
	}
}

// byLibrary does the same in this process, on a store that is opened once, with leases that are held.
func (c *collection) byLibrary(i int) {
	st, err := openStore(c.s.Root, c.s.RunRoot)
	if err != nil {
		c.t.Error(err)
		return
	}
	defer st.Close()
	c.again(builds, func(n int) {
		if err := c.build(st, fmt.Sprintf("l%d-%d", i, n), n%8 == 0); err != nil {
			c.t.Errorf("by library: %v", err)
		}
	})
}

func (c *collection) build(st *store.Store, name string, keep bool) (err error) {
	ctx := c.t.Context()
	base, err := st.Lease(ctx, store.LeaseOptions{Image: "localhost/leased", Owner: name})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, base.Release(ctx)) }()
	img, err := st.Resolve(ctx, "localhost/leased", nil)
	if err != nil {
		return err
	}
	ctr, err := st.NewContainer(ctx, img, store.ContainerOptions{})
	if err != nil {
		return err
	}
	if keep {
		c.keep(ctr.ID, name)
	} else {
		defer func() { err = errors.Join(err, ctr.Remove(ctx)) }()
	}
	err = ctr.WithMount(ctx, func(root string) error { return os.WriteFile(filepath.Join(root, name), []byte(name), 0o644) })
	if err != nil {
		return err
	}
	var made commit.Result
	if len(name)%2 == 0 {
		made, err = commit.Container(ctx, st, ctr.ID, commit.Options{})
	} else {
		made, err = stepwise(ctx, st, name)
	}
	if errors.Is(err, kimg.ErrNotFound) {
		c.counts[lost].Add(1)
		return nil
	}
	if err != nil {
		return err
	}
	lease, err := st.Lease(ctx, store.LeaseOptions{Image: made.ImageID, Detached: keep})
	if errors.Is(err, kimg.ErrNotFound) {
		c.counts[lost].Add(1)
		return nil
	}
	if err != nil {
		return err
	}
	if keep {
		c.keep(made.ImageID, name)
	} else {
		defer func() { err = errors.Join(err, lease.Renew(ctx, time.Hour), lease.Release(ctx)) }()
	}
	if img, err = st.Resolve(ctx, made.ImageID, nil); err != nil {
		return err
	}
	layers, err := img.Layers(ctx)
	if err != nil {
		return err
	}
	var tar bytes.Buffer
	for _, l := range layers {
		if err := st.ExportLayer(ctx, l.ID, &tar); err != nil {
			return err
		}
	}
	if !bytes.Contains(tar.Bytes(), []byte(name)) {
		return fmt.Errorf("%s: its file is not in the image", name)
	}
	return nil
}

// stepwise makes an image of the leased one in two steps, between which nothing but the build holds the layers.
func stepwise(ctx context.Context, st *store.Store, name string) (made commit.Result, err error) {
	on, err := commit.From(ctx, st, "localhost/leased", commit.FromOptions{Owner: name})
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, on.Release(ctx)) }()
	config, err := on.Image.Config(ctx)
	if err != nil {
		return made, err
	}
	var image struct {
		OS           string       `json:"os"`
		Architecture string       `json:"architecture"`
		RootFS       ispec.RootFS `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &image); err != nil {
		return made, err
	}
	for _, step := range []string{name, name + "-2"} {
		rw, err := on.NewRWLayer(ctx)
		if err != nil {
			return made, err
		}
		err = os.WriteFile(filepath.Join(rw.Root(), step), []byte(step), 0o644)
		var next *commit.ROLayer
		if err == nil {
			next, err = rw.Commit(ctx)
		}
		if err = errors.Join(err, rw.Release(ctx)); err != nil {
			return made, err
		}
		if err := on.Release(ctx); err != nil {
			return made, err
		}
		on = next
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, on.DiffID())
	}
	if config, err = json.Marshal(image); err != nil {
		return made, err
	}
	return commit.CreateImage(ctx, st, config, on.Image.ID, on, commit.Options{})
}

// kill lets a process take a lease of an image of its own, and kills it: its lease goes, and then its image may.
func (c *collection) kill(n int) {
	image := c.run(false, "config", "--image", "localhost/leased", "--env", fmt.Sprint("N=", n), fmt.Sprint("localhost/killed:", n))
	if image == "" {
		return
	}
	cmd := exec.Command("/proc/self/exe", c.s.Root, c.s.RunRoot, fmt.Sprint("localhost/killed:", n))
	cmd.Env = append(os.Environ(), envHolder+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		c.t.Error(err)
		return
	}
	defer in.Close()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		c.t.Error(err)
		return
	}
	id := make([]byte, 64)
	if _, err := io.ReadFull(out, id); err != nil { // podman was faster
		if _ = cmd.Wait(); !strings.Contains(stderr.String(), "no such image") && !strings.Contains(stderr.String(), "image not known") {
			c.t.Errorf("%v: %s", err, &stderr)
		}
		c.counts[lost].Add(1)
		return
	}
	time.Sleep(time.Second)
	if !strings.Contains(c.run(false, "lease", "ls", "--quiet"), string(id)) || c.run(false, "images", "--quiet", fmt.Sprint("localhost/killed:", n)) == "" {
		c.t.Error("what a living process holds was removed")
	}
	if err := cmd.Process.Kill(); err != nil {
		c.t.Error(err)
	}
	_ = cmd.Wait()
	for before := c.counts[collections].Load(); strings.Contains(c.run(false, "lease", "ls", "--quiet"), string(id)); time.Sleep(50 * time.Millisecond) {
		if c.counts[collections].Load() > before+4 { // one that was under way has not seen it, perhaps
			c.t.Error("the lease of a killed process stays")
			return
		}
		if time.Now().After(c.until) || c.t.Failed() {
			c.run(false, "gc") // the loop has ended
			c.counts[collections].Add(1)
		}
	}
}

// checkAll looks at everything that was to stay.
func (c *collection) checkAll() {
	t, s := c.t, c.s.On(c.t)
	if got := s.Peer("podman", "inspect", "-f", "{{.State.Status}}", "live"); got != "running" {
		t.Errorf("the container of podman's is %s", got)
	}
	if len(c.kept) < 8 {
		t.Errorf("only %d things were kept", len(c.kept))
	}
	images := strings.Fields(s.Kimg("images", "--quiet", "--no-trunc"))
	for id, name := range c.kept {
		if slices.Contains(images, id) {
			s.Kimg("validate", id)
		}
		if !strings.Contains(s.Kimg("export", id), name) {
			t.Errorf("%s: its file is not in %s", name, id)
		}
	}
	s.Kimg("validate", "localhost/leased")
	s.Kimg("validate", "localhost/base")
	s.Kimg("diff", "old")
	if left := s.Kimg("lease", "ls", "--format", "{{.State}}"); strings.Contains(left, "dead") {
		s.Kimg("gc")
	}
	if left := s.Kimg("lease", "ls", "--format", "{{.State}} {{.Owner}}"); strings.Contains(left, "dead") || strings.Contains(left, "holder") {
		t.Errorf("leases that are over: %s", left)
	}
	s.Kimg("gc", "--filter", "until=0s")
	if left := s.Kimg("gc", "--filter", "until=0s"); left != "" {
		t.Errorf("garbage after a collection: %s", left)
	}
	s.CheckClean()
}
