package commit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/storetest"
)

const emptyTar = digest.Digest("sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// from opens a layer to build on and gives it back at the end.
func from(t testing.TB, s *store.Store, ref string, o commit.FromOptions) *commit.ROLayer {
	t.Helper()
	l, err := commit.From(t.Context(), s, ref, o)
	must(t, err)
	t.Cleanup(func() { must(t, l.Release(context.Background())) })
	return l
}

// step writes one file on top of a layer and commits that; without a name it writes none.
func step(t testing.TB, on *commit.ROLayer, name, content string) *commit.ROLayer {
	t.Helper()
	rw, err := on.NewRWLayer(t.Context())
	must(t, err)
	if name != "" {
		must(t, os.WriteFile(filepath.Join(rw.Root(), name), []byte(content), 0o644))
	}
	l, err := rw.Commit(t.Context())
	must(t, err)
	must(t, rw.Release(t.Context()))
	t.Cleanup(func() { must(t, l.Release(context.Background())) })
	return l
}

// configOf is a Docker configuration with a history entry for each layer, as a builder writes it.
func configOf(t testing.TB, author string, diffIDs []digest.Digest) []byte {
	t.Helper()
	history := make([]map[string]string, len(diffIDs))
	for i := range history {
		history[i] = map[string]string{"created_by": fmt.Sprint("step ", i)}
	}
	data, err := json.Marshal(map[string]any{
		"author": author, "architecture": "amd64", "os": "linux", "created": "2024-02-29T12:00:00Z", "docker_version": "27.0", "unheard-of": 1,
		"config": map[string]any{"Env": []string{"A=1"}, "OnBuild": []string{"RUN x"}}, "history": history,
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	must(t, err)
	return data
}

// refusedAs wants an error of a class, and the store as it was before.
func refusedAs(t *testing.T, s *store.Store, class kimg.Class, before string, err error) {
	t.Helper()
	if kimg.ClassOf(err) != class {
		t.Errorf("got %v, want class %s", err, class)
	}
	if after := storetest.Inventory(t, s); after != before {
		t.Errorf("the store has changed:\n%s---\n%s", before, after)
	}
}

func platform(os, arch, variant string) *ispec.Platform {
	return &ispec.Platform{OS: os, Architecture: arch, Variant: variant}
}

// TestBuilderScratch is B1, B2, B3 and B18 of no image.
func TestBuilderScratch(t *testing.T) {
	s := storetest.Kinds()[0].New(t)
	before := storetest.Inventory(t, s)
	for _, ref := range []string{"", "scratch"} { // B1
		l := from(t, s, ref, commit.FromOptions{Platform: platform("linux", "s390x", "")})
		if l.Image != nil || !l.Empty() || l.DiffID() != emptyTar || l.Digest() != "" || l.ChainID() != "" || len(l.DiffIDs()) != 0 || l.Warnings != nil {
			t.Errorf("B1, B18: %+v", l)
		}
		must(t, l.Release(t.Context()))
		_, err := l.NewRWLayer(t.Context())
		refusedAs(t, s, kimg.ErrInvalid, before, err)
	}
	_, err := commit.From(t.Context(), s, "", commit.FromOptions{Platform: platform("windows", "amd64", "")})
	refusedAs(t, s, kimg.ErrUnsupported, before, err) // B2
	asked := 0
	for _, p := range []*ispec.Platform{platform("dos", "amd64", ""), platform("linux", "z80", ""), platform("linux", "arm", "v1"), platform("linux", "x86_64", "")} {
		_, err := commit.From(t.Context(), nil, "image", commit.FromOptions{Platform: p, Policy: commit.PullAlways, Pull: func(context.Context, commit.PullRequest) error {
			asked++
			return nil
		}}) // B3: a store that is not there is not looked at
		refusedAs(t, s, kimg.ErrInvalid, before, err)
	}
	if asked > 0 {
		t.Error("B3: an image for no platform was asked for")
	}
}

// TestBuilderBase is B5, B6, B14, B16 to B19 and B29 as far as the layer below goes.
func TestBuilderBase(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ctx := t.Context()
		img := storetest.AddImage(t, s, "registry.example/base", "a", "b")
		before := storetest.Inventory(t, s)
		infos, err := img.Layers(ctx)
		must(t, err)
		diffIDs := []digest.Digest{infos[0].DiffID, infos[1].DiffID}
		for _, ref := range []string{"registry.example/base:latest", "base", img.ID, img.ID[:12], "base@" + string(img.Digest)} { // B5
			l, err := commit.From(ctx, s, ref, commit.FromOptions{Owner: "somebody", Purpose: "to build"})
			must(t, err)
			if l.Image.ID != img.ID || l.Empty() || l.DiffID() != diffIDs[1] || l.Digest() != diffIDs[1] { // B18
				t.Errorf("%s: %+v", ref, l)
			}
			if !slices.Equal(l.DiffIDs(), diffIDs) || l.ChainID() != identity.ChainID(slices.Clone(diffIDs)) { // B16, B17
				t.Errorf("%s: %v, %s", ref, l.DiffIDs(), l.ChainID())
			}
			leases, err := s.Leases(ctx) // B19
			must(t, err)
			if len(leases) != 1 || leases[0].ImageID != img.ID || leases[0].Owner != "somebody" || leases[0].Purpose != "to build" || time.Until(leases[0].Expires).Round(time.Hour) != 24*time.Hour {
				t.Errorf("B19: %+v", leases)
			}
			must(t, l.Release(ctx))
			must(t, l.Release(ctx)) // B18
		}
		_, err = commit.From(ctx, s, "absent", commit.FromOptions{}) // B6
		refusedAs(t, s, kimg.ErrNotFound, before, err)
		if d, err := img.Descriptor(ctx); err != nil || d.Digest != img.Digest || d.MediaType != ispec.MediaTypeImageManifest || d.Size < 100 { // B14
			t.Errorf("B14: %+v, %v", d, err)
		}
	})
}

// TestBuilderPull is B4, B8, B10, B12, B13, and B7 from the moment the image is there; B9 and B11 are the fetcher's own.
func TestBuilderPull(t *testing.T) {
	ctx := t.Context()
	host := ispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	boom := kimg.Errorf(kimg.ErrNetwork, "registry", "is not there")
	for _, c := range []struct {
		name      string
		ref       string
		have      string // platform of the image in the store; empty: none
		policy    commit.PullPolicy
		want      *ispec.Platform
		get       string // platform of the one in the registry; empty: the registry fails
		asked, as string // what was fetched; empty: nothing
		class     kimg.Class
		warned    bool
	}{
		{name: "missing, there", ref: "base", have: "linux/" + host.Architecture, get: "linux/amd64"},
		{name: "missing, absent", ref: "base", get: "linux/" + host.Architecture, asked: "docker.io/library/base:latest"},
		{name: "missing, absent and refused", ref: "q.io/base:1", asked: "q.io/base:1", class: kimg.ErrNetwork},
		{name: "missing, for another platform", ref: "base", have: "linux/s390x", want: platform("linux", "arm", "v7"), get: "linux/arm/v7", asked: "docker.io/library/base:latest"},
		{name: "missing, for an older variant", ref: "base", have: "linux/arm/v6", want: platform("linux", "arm", "v7")},
		{name: "any platform will do, with a warning", ref: "base", have: "linux/s390x", warned: true},
		{name: "never, absent", ref: "base", policy: commit.PullNever, get: "linux/amd64", class: kimg.ErrNotFound},
		{name: "never, for another platform", ref: "base", have: "linux/s390x", policy: commit.PullNever, want: &host, get: "linux/amd64", class: kimg.ErrUnsupported},
		{name: "always, there", ref: "q.io/base", have: "linux/amd64", policy: commit.PullAlways, want: &host, get: "linux/" + host.Architecture, asked: "q.io/base:latest"},
		{name: "always, refused", ref: "q.io/base", have: "linux/amd64", policy: commit.PullAlways, asked: "q.io/base:latest", class: kimg.ErrNetwork},
		{name: "newer, there and refused", ref: "q.io/base", have: "linux/" + host.Architecture, policy: commit.PullNewer, asked: "q.io/base:latest"},
		{name: "newer, absent and refused", ref: "q.io/base", policy: commit.PullNewer, asked: "q.io/base:latest", class: kimg.ErrNetwork},
		{name: "the registry's is for another platform", ref: "base", want: platform("linux", "arm64", ""), get: "linux/amd64", asked: "docker.io/library/base:latest", warned: true},
		{name: "the registry's is for no platform", ref: "base", get: "dos/amd64", asked: "docker.io/library/base:latest", class: kimg.ErrInvalid},
		{name: "names of this machine", ref: "localhost/base", get: "linux/amd64", class: kimg.ErrNotFound},
		{name: "IDs", ref: strings.Repeat("0", 64), policy: commit.PullAlways, get: "linux/amd64", class: kimg.ErrNotFound},
		{name: "no policy", ref: "base", policy: "sometimes", class: kimg.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := storetest.Kinds()[0].New(t)
			if c.have != "" {
				platformImage(t, s, "q.io/base", c.have)
			}
			before := storetest.Inventory(t, s)
			var got commit.PullRequest
			l, err := commit.From(ctx, s, c.ref, commit.FromOptions{Platform: c.want, Policy: c.policy, Pull: func(_ context.Context, r commit.PullRequest) error {
				got = r
				if c.get == "" {
					return boom
				}
				platformImage(t, s, r.Name, c.get)
				return nil
			}})
			if got.Name != c.asked { // B4, B8
				t.Errorf("%q was fetched", got.Name)
			}
			if want := c.want; want != nil && got.Name != "" && got.Platform.Architecture != want.Architecture { // B10
				t.Errorf("B10: fetched for %+v", got.Platform)
			}
			if (got.Have != "") != (c.have != "" && got.Name != "" && (c.policy == commit.PullAlways || c.policy == commit.PullNewer)) {
				t.Errorf("the fetcher was told that there is %q", got.Have)
			}
			if c.class != "" {
				if c.get == "" || c.asked == "" {
					refusedAs(t, s, c.class, before, err)
				}
				if leases, lerr := s.Leases(ctx); kimg.ClassOf(err) != c.class || lerr != nil || len(leases) > 0 { // B13
					t.Errorf("got %v, want class %s; leases %v, %v", err, c.class, leases, lerr)
				}
				return
			}
			must(t, err)
			if leases, err := s.Leases(ctx); err != nil || len(leases) != 1 || leases[0].ImageID != l.Image.ID { // B7
				t.Errorf("B7: leases %v, %v", leases, err)
			}
			if warned := len(l.Warnings) == 1 && l.Warnings[0].Code == "platform-mismatch" && l.Warnings[0].Image == c.ref; warned != c.warned { // B12
				t.Errorf("B12: %+v", l.Warnings)
			}
			must(t, l.Release(ctx))
		})
	}
}

// platformImage puts an image without layers.
func platformImage(t testing.TB, s *store.Store, name, p string) {
	t.Helper()
	parts := append(strings.Split(p, "/"), "")
	config, err := json.Marshal(ispec.Image{Author: p + name, Platform: *platform(parts[0], parts[1], parts[2]), RootFS: ispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}})
	must(t, err)
	manifest, mediaType, err := convert.Manifest(convert.OCI, ispec.Descriptor{Digest: digest.FromBytes(config), Size: int64(len(config))}, nil, nil)
	must(t, err)
	_, err = s.PutImage(t.Context(), store.ImageRecord{Config: config, Manifest: manifest, ManifestType: mediaType, Names: []string{name}})
	must(t, err)
}

// TestBuilderStep is B20 to B26.
func TestBuilderStep(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ctx := t.Context()
		storetest.AddImage(t, s, "base", "a")
		before := storetest.Inventory(t, s)
		base, err := commit.From(ctx, s, "base", commit.FromOptions{})
		must(t, err)
		one, err := base.NewRWLayer(ctx)
		must(t, err)
		two, err := base.NewRWLayer(ctx)
		must(t, err)
		if one.ID() == two.ID() || len(one.ID()) != 64 { // B20
			t.Errorf("ids %s, %s", one.ID(), two.ID())
		}
		if _, err := os.Stat(filepath.Join(one.Root(), "a")); err != nil || one.Root() == two.Root() { // B21, B23
			t.Errorf("mounted at %s: %v", one.Root(), err)
		}
		must(t, base.Release(ctx)) // the layers on it outlive that
		for _, rw := range []*commit.RWLayer{one, two} {
			must(t, os.WriteFile(filepath.Join(rw.Root(), "new"), []byte("new"), 0o644))
			must(t, os.Chtimes(filepath.Join(rw.Root(), "new"), day, day))
		}
		l, err := one.Commit(ctx)
		must(t, err)
		for _, rw := range []*commit.RWLayer{one, two} { // B24: equal layers
			again, err := rw.Commit(ctx)
			must(t, err)
			if again.DiffID() != l.DiffID() || again.ChainID() != l.ChainID() || again.Empty() || again.Digest() != again.DiffID() { // B25
				t.Errorf("%+v, %+v", again, l)
			}
			must(t, again.Release(ctx))
		}
		for range 2 { // B26
			must(t, one.Release(cancelled(t)))
			must(t, two.Release(ctx))
		}
		if leases, err := s.Leases(ctx); err != nil || len(leases) != 1 {
			t.Errorf("the image under a layer in use: leases %v, %v", leases, err)
		}
		must(t, l.Release(cancelled(t)))
		must(t, l.Release(ctx))
		_, err = two.Commit(ctx)
		refusedAs(t, s, kimg.ErrInvalid, before, err) // B22 and B26: nothing is left, the lease neither
		_, err = l.NewRWLayer(ctx)
		refusedAs(t, s, kimg.ErrInvalid, before, err)

		base, err = commit.From(ctx, s, "base", commit.FromOptions{})
		must(t, err)
		held := storetest.Inventory(t, s)
		_, err = base.NewRWLayer(cancelled(t)) // B22
		refusedAs(t, s, kimg.ErrInterrupted, held, err)
		rw, err := base.NewRWLayer(ctx)
		must(t, err)
		held = storetest.Inventory(t, s)
		_, err = rw.Commit(cancelled(t))
		refusedAs(t, s, kimg.ErrInterrupted, held, err)
		must(t, rw.Release(ctx))
		must(t, base.Release(ctx))
		if after := storetest.Inventory(t, s); after != before {
			t.Errorf("the store has changed:\n%s---\n%s", before, after)
		}
	})
}

func cancelled(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// TestReleaseWithoutLease is B26: a lease that cannot be given back is a warning.
func TestReleaseWithoutLease(t *testing.T) {
	s := storetest.Kinds()[0].New(t)
	storetest.AddImage(t, s, "base", "a")
	var log strings.Builder
	base := from(t, s, "base", commit.FromOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	leases, err := s.Leases(t.Context())
	must(t, err)
	dir := filepath.Join(s.Storage().GraphRoot(), "overlay-containers", "containers.json")
	must(t, os.Rename(dir, dir+".away"))
	must(t, os.Mkdir(dir, 0o700))
	err = base.Release(t.Context())
	must(t, os.Remove(dir))
	must(t, os.Rename(dir+".away", dir))
	if err != nil || !strings.Contains(log.String(), leases[0].ID) {
		t.Errorf("released with %v; logged %q", err, log.String())
	}
}

// TestCreateImage is B27 to B38.
func TestCreateImage(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ctx := t.Context()
		parent := storetest.AddImage(t, s, "base", "a", "b")
		one := step(t, from(t, s, "base", commit.FromOptions{}), "one", "1")
		config := configOf(t, "me", one.DiffIDs())
		r, err := commit.CreateImage(ctx, s, config, parent.ID, one, commit.Options{}) // B27
		must(t, err)
		img, err := s.Resolve(ctx, r.ImageID, nil)
		must(t, err)
		if len(img.Names) > 0 || img.ID != r.ConfigDigest.Encoded() || img.Digest != r.ManifestDigest || r.ConfigDigest != digest.FromBytes(config) { // B34, B38
			t.Errorf("%+v, %+v", r, img)
		}
		if kept, err := img.Config(ctx); err != nil || string(kept) != string(config) { // B28: Docker's members too
			t.Errorf("B28: %s, %v", kept, err)
		}
		m := manifestOf(t, img)
		base := manifestOf(t, parent)
		if len(m.Layers) != 3 || m.Layers[0].Digest != base.Layers[0].Digest || m.Layers[1].Size != base.Layers[1].Size { // B29
			t.Errorf("B29: %+v", m.Layers)
		}
		if last := m.Layers[2]; last.Digest != one.Digest() || last.MediaType != ispec.MediaTypeImageLayer || last.Size != r.Layer.Size || r.Layer.Size < 1024 { // B31
			t.Errorf("B31: %+v", last)
		}
		if m.Annotations[ispec.AnnotationBaseImageDigest] != string(parent.Digest) || m.Annotations[ispec.AnnotationBaseImageName] != "localhost/base:latest" { // B35
			t.Errorf("B35: %v", m.Annotations)
		}
		if infos, err := img.Layers(ctx); err != nil || len(infos) != 3 || infos[2].DiffID != one.DiffID() { // B37: a container can be made at once
			t.Errorf("B37: %v, %v", infos, err)
		}
		must(t, one.Release(ctx))

		// B36: the name moves, the image that had it stays; B32: also while its parent loses its own.
		again := step(t, from(t, s, r.ImageID, commit.FromOptions{}), "two", "2")
		second, err := commit.CreateImage(ctx, s, configOf(t, "me", again.DiffIDs()), r.ImageID, again, commit.Options{Names: []string{"base"}, Format: convert.DockerV2S2})
		must(t, err)
		if got, err := s.Resolve(ctx, "base", nil); err != nil || got.ID != second.ImageID {
			t.Errorf("B36: %v, %v", got, err)
		}
		if got, err := s.Resolve(ctx, parent.ID, nil); err != nil || len(got.Names) != 0 {
			t.Errorf("B36: the old image is %+v, %v", got, err)
		}

		// B30: a step that changed nothing makes no layer, but a history entry.
		none := step(t, again, "", "")
		if !none.Empty() || none.DiffID() != emptyTar || none.Digest() != "" {
			t.Errorf("B30: %+v", none)
		}
		for name, diffIDs := range map[string][]digest.Digest{"listed": append(again.DiffIDs(), none.DiffID()), "not listed": again.DiffIDs()} {
			r, err := commit.CreateImage(ctx, s, configOf(t, name, diffIDs), second.ImageID, none, commit.Options{})
			must(t, err)
			img, err := s.Resolve(ctx, r.ImageID, nil)
			must(t, err)
			data, err := img.Config(ctx)
			must(t, err)
			var c ispec.Image
			must(t, json.Unmarshal(data, &c))
			if !r.Layer.Empty || len(c.RootFS.DiffIDs) != 4 || len(manifestOf(t, img).Layers) != 4 || len(c.History) == 5 != (name == "listed") || c.History[len(c.History)-1].EmptyLayer != (name == "listed") {
				t.Errorf("B30, %s: %s", name, data)
			}
		}

		// Several steps at once, on nothing.
		l := step(t, step(t, from(t, s, "", commit.FromOptions{}), "x", "x"), "y", "y")
		r, err = commit.CreateImage(ctx, s, configOf(t, "me", l.DiffIDs()), "", l, commit.Options{Names: []string{"scratched"}, Annotations: map[string]string{"k": "v"}})
		must(t, err)
		img, err = s.Resolve(ctx, "scratched", nil)
		must(t, err)
		if m := manifestOf(t, img); len(m.Layers) != 2 || len(m.Annotations) != 1 {
			t.Errorf("%+v", m)
		}
	})
}

func manifestOf(t testing.TB, img *store.Image) ispec.Manifest {
	t.Helper()
	data, _, err := img.Manifest(t.Context())
	must(t, err)
	var m ispec.Manifest
	must(t, json.Unmarshal(data, &m))
	return m
}

// TestNameComesLast is B33: whenever a name leads to the new image, its manifest, configuration and layers are there.
func TestNameComesLast(t *testing.T) {
	s := storetest.Kinds()[0].New(t)
	ctx := t.Context()
	l := step(t, from(t, s, "", commit.FromOptions{}), "x", "x")
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < 10 && err == nil; i++ {
			_, err = commit.CreateImage(ctx, s, configOf(t, fmt.Sprint(i), l.DiffIDs()), "", l, commit.Options{Names: []string{"new"}})
		}
		done <- err
	}()
	for {
		select {
		case err := <-done:
			must(t, err)
			return
		default:
		}
		img, err := s.Resolve(ctx, "new", nil)
		if errors.Is(err, kimg.ErrNotFound) {
			continue
		}
		must(t, err)
		_, err = img.Config(ctx)
		must(t, err)
		if infos, err := img.Layers(ctx); err != nil || len(infos) != 1 {
			t.Fatal(infos, err)
		}
	}
}

// TestBuilderBadInput: a class for each, and nothing is left.
func TestBuilderBadInput(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ctx := t.Context()
		base := storetest.AddImage(t, s, "base", "a")
		other := storetest.AddImage(t, s, "other", "z")
		clean := storetest.Inventory(t, s)
		ro, err := commit.From(ctx, s, "base", commit.FromOptions{})
		must(t, err)
		rw, err := ro.NewRWLayer(ctx)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(rw.Root(), "new"), []byte("new"), 0o644))
		l, err := rw.Commit(ctx)
		must(t, err)
		elsewhere := step(t, from(t, storetest.Kinds()[0].New(t), "", commit.FromOptions{}), "x", "x")
		before := storetest.Inventory(t, s)
		good := configOf(t, "", l.DiffIDs())
		for name, c := range map[string]struct {
			config []byte
			parent string
			layer  *commit.ROLayer
			o      commit.Options
			class  kimg.Class
		}{
			"unknown parent":                {good, strings.Repeat("0", 64), l, commit.Options{}, kimg.ErrNotFound},
			"layer of another parent":       {good, other.ID, l, commit.Options{}, kimg.ErrInvalid},
			"layer of a parent, given none": {good, "", l, commit.Options{}, kimg.ErrInvalid},
			"layer of another store":        {good, base.ID, elsewhere, commit.Options{}, kimg.ErrInvalid},
			"too few layers":                {configOf(t, "", l.DiffIDs()[:1]), base.ID, l, commit.Options{}, kimg.ErrInvalid},
			"too many layers":               {configOf(t, "", append(l.DiffIDs(), emptyTar)), base.ID, l, commit.Options{}, kimg.ErrInvalid},
			"other layers":                  {configOf(t, "", []digest.Digest{l.DiffID(), l.DiffID()}), base.ID, l, commit.Options{}, kimg.ErrInvalid},
			"a layer without one":           {good, base.ID, nil, commit.Options{}, kimg.ErrInvalid},
			"no configuration":              {nil, base.ID, l, commit.Options{}, kimg.ErrInvalid},
			"history that does not fit":     {[]byte(strings.Replace(string(good), `"history":[{`, `"history":[{},{`, 1)), base.ID, l, commit.Options{}, kimg.ErrInvalid},
			"no format":                     {good, base.ID, l, commit.Options{Format: convert.DockerV2S1}, kimg.ErrUnsupported},
			"no name":                       {good, base.ID, l, commit.Options{Names: []string{"NO"}}, kimg.ErrInvalid},
		} {
			_, err := commit.CreateImage(ctx, s, c.config, c.parent, c.layer, c.o)
			if kimg.ClassOf(err) != c.class {
				t.Errorf("%s: %v, want class %s", name, err, c.class)
			}
			refusedAs(t, s, c.class, before, err)
		}
		_, err = commit.CreateImage(cancelled(t), s, good, base.ID, l, commit.Options{})
		refusedAs(t, s, kimg.ErrInterrupted, before, err)

		// Somebody else shuts the store down, and removes what they can.
		if _, err := s.Storage().Shutdown(true); err != nil {
			t.Logf("shutdown: %v", err)
		}
		again, err := rw.Commit(ctx) // what was written before is there
		must(t, err)
		if again.DiffID() != l.DiffID() {
			t.Errorf("after a shutdown the layer is %s, not %s", again.DiffID(), l.DiffID())
		}
		must(t, again.Release(ctx))
		must(t, s.Close())
		for _, err := range []error{rw.Release(ctx), rw.Release(ctx), l.Release(ctx), l.Release(ctx), ro.Release(ctx)} {
			if err != nil {
				t.Errorf("release after the store was closed: %v", err)
			}
		}
		_, err = rw.Commit(ctx)
		refusedAs(t, s, kimg.ErrInvalid, clean, err)
		_, err = commit.CreateImage(ctx, s, good, base.ID, l, commit.Options{})
		refusedAs(t, s, kimg.ErrInvalid, clean, err)
	})
}

// TestLayersRemoved: an engine removes what is not in use by its own rules, and what it takes is missed, not made up.
func TestLayersRemoved(t *testing.T) {
	s := storetest.Kinds()[0].New(t)
	ctx := t.Context()
	l := step(t, from(t, s, "", commit.FromOptions{}), "x", "x")
	must(t, s.Storage().DeleteLayer(l.DiffID().Encoded()))
	before := storetest.Inventory(t, s)
	_, err := l.NewRWLayer(ctx)
	refusedAs(t, s, kimg.ErrNotFound, before, err)
	_, err = commit.CreateImage(ctx, s, configOf(t, "", l.DiffIDs()), "", l, commit.Options{})
	refusedAs(t, s, kimg.ErrNotFound, before, err)
	rw, err := from(t, s, "", commit.FromOptions{}).NewRWLayer(ctx)
	must(t, err)
	must(t, s.Storage().DeleteLayer(rw.ID()))
	_, err = rw.Commit(ctx)
	if !errors.Is(err, kimg.ErrInvalid) {
		t.Errorf("a layer that somebody removed: %v", err)
	}
	must(t, rw.Release(ctx))
}

// TestBuildersAtOnce lets 8 builds share one store, half of them making the same layers.
func TestBuildersAtOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ctx := t.Context()
		storetest.AddImage(t, s, "base", "a")
		before := storetest.Inventory(t, s)
		build := func(n int) error {
			l, err := commit.From(ctx, s, "base", commit.FromOptions{})
			for i := 0; i < 3 && err == nil; i++ {
				var rw *commit.RWLayer
				var next *commit.ROLayer
				if rw, err = l.NewRWLayer(ctx); err != nil {
					break
				}
				path := filepath.Join(rw.Root(), fmt.Sprint(i))
				if err = os.WriteFile(path, []byte(fmt.Sprint(max(n, 4))), 0o644); err == nil {
					err = os.Chtimes(path, day, day)
				}
				if err == nil {
					next, err = rw.Commit(ctx)
				}
				err = errors.Join(err, rw.Release(ctx), l.Release(ctx))
				l = next
			}
			if err != nil {
				return err
			}
			name := fmt.Sprint("built-", n)
			if _, err = commit.CreateImage(ctx, s, configOf(t, name, l.DiffIDs()), "base", l, commit.Options{Names: []string{name}}); err == nil {
				err = l.Release(ctx)
			}
			return err
		}
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for n := range errs {
			wg.Go(func() { errs[n] = build(n + 1) })
		}
		wg.Wait()
		must(t, errors.Join(errs...))
		for n := range errs {
			img, err := s.Resolve(ctx, fmt.Sprint("built-", n+1), nil)
			must(t, err)
			infos, err := img.Layers(ctx)
			must(t, err)
			for _, l := range infos {
				must(t, s.ExportLayer(ctx, l.ID, &strings.Builder{}))
			}
			if len(infos) != 4 {
				t.Errorf("%d layers", len(infos))
			}
		}
		for n := range errs {
			if _, err := s.DeleteImage(ctx, fmt.Sprint("built-", n+1), false); err != nil {
				t.Error(err)
			}
		}
		if after := storetest.Inventory(t, s); after != before {
			t.Errorf("the store has changed:\n%s---\n%s", before, after)
		}
	})
}
