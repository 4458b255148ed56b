package main

import (
	"cmp"
	"context"
	"strings"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/types"
	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	convertimage "github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/store"
)

// pullOptions are the flags of kimg pull.
type pullOptions struct {
	copyOptions
	policy string
}

func newPull(a *app) *cobra.Command {
	o := &pullOptions{copyOptions: copyOptions{app: a}}
	cmd := &cobra.Command{
		Use:   "pull [flags] REF…",
		Short: "Fetch images into the store",
		Long: `Fetch images into the store, with the manifests they have, and print their IDs. REF is the name of an image in a registry, or any
place kimg copy knows. A name without a registry is looked for as registries.conf says; nobody is asked which one was meant.

--policy always fetches what the store does not have of the image, missing only when the store has no such image, newer when the
registry has another one, and does with what there is when it cannot be asked; never fetches nothing.

With enable_partial_images in the pull_options of storage.conf, layers of zstd:chunked are put together of files that layers of
the store have and of the parts of the blob that are missing. --keep-blobs and --keep-recipes fetch whole blobs.`,
		Example: `  kimg pull registry.example/app:1
  kimg pull --all --policy newer registry.example/app:1
  kimg pull --keep-blobs --platform linux/arm64 oci-archive:app.tar`,
		Args: args(1, -1),
		RunE: a.withStore(anyNamespace, o.check, o.run),
	}
	o.register(cmd)
	f := cmd.Flags()
	o.keep.register(f, "keep compressed layers as they came, too, to push them with their digests")
	f.StringVar(&o.policy, "policy", "always", "when to fetch: `always`, missing, newer or never")
	o.sides.both.register(cmd, "", "registries")
	return cmd
}

func (o *pullOptions) check(list []string) error {
	if err := o.copyOptions.check(); err != nil {
		return err
	}
	if err := checkPolicy("--policy", o.policy); err != nil {
		return err
	}
	if o.digestFile != "" && len(list) > 1 {
		return usagef("--digestfile", "is for one image")
	}
	var err error
	if o.options.Sys, o.options.Retries, err = o.sides.both.system(o.app); err == nil {
		_, err = references(list)
	}
	return err
}

func checkPolicy(flag, word string) error {
	_, err := oneOf(flag, word, map[string]bool{"always": true, "missing": true, "newer": true, "never": true})
	return err
}

func (o *pullOptions) run(ctx context.Context, st *store.Store, list []string) error {
	file, err := newResultFile(o.digestFile, 4<<10, mayReplace)
	if err != nil {
		return err
	}
	defer file.abort()
	made := []pulledJSON{}
	failed := false
	for _, text := range list {
		var img *store.Image
		err := o.oneStep("pull", text, o.progress, o.quiet, func(s *step) (err error) {
			p := o.options
			p.Progress, p.Logger = s.layer, o.log
			img, err = o.fetch(ctx, st, text, commit.PullPolicy(o.policy), p)
			return err
		})
		if err == nil {
			err = file.write([]byte(img.Digest))
		}
		if err != nil && (len(list) == 1 || kimg.ClassOf(err) == kimg.ErrInterrupted) {
			return err
		}
		if err != nil {
			failed = true
			o.report("pull", err)
			continue
		}
		made = append(made, pulledJSON{text, img.ID, orEmpty(img.Names), img.Digest.String()})
		if !o.flags.json && !o.quiet {
			o.println(img.ID)
		}
	}
	if o.flags.json {
		err = o.printJSON(map[string]any{"images": made})
	}
	if err == nil && failed {
		err = status(exitFail)
	}
	return err
}

// pulledJSON is one image that was fetched, or that the store had.
type pulledJSON struct {
	Source string   `json:"source"`
	ID     string   `json:"id"`
	Names  []string `json:"names"`
	Digest string   `json:"digest"`
}

// fetch finds an image in the store, or brings it there, as a policy says.
func (a *app) fetch(ctx context.Context, st *store.Store, ref string, policy commit.PullPolicy, p convertimage.Options) (*store.Image, error) {
	parsed, err := references([]string{ref})
	if err != nil {
		return nil, err
	}
	src := parsed[0]
	if !convertimage.NamesStore(src) && src.Transport().Name() != "docker" {
		if policy == commit.PullNever {
			return nil, kimg.Errorf(kimg.ErrNotFound, ref, "is not in the store, and nothing may be fetched")
		}
		return a.bring(ctx, st, src, nameOf(src), p)
	}
	name := src.StringWithinTransport()
	if named := src.DockerReference(); named != nil {
		name = named.String()
	}
	name = untagged(name)
	have, err := a.inStore(ctx, st, name, p)
	absent := kimg.ClassOf(err) == kimg.ErrNotFound || kimg.ClassOf(err) == kimg.ErrUnsupported
	switch {
	case err != nil && !absent, policy == commit.PullNever, policy == commit.PullMissing && err == nil:
		return have, err
	}
	full, uerr := candidates(p.Sys, name, have)
	if uerr != nil {
		return nil, uerr
	}
	if len(full) == 0 && policy == commit.PullNewer && err == nil {
		return have, nil // there is nobody to ask
	}
	if len(full) == 0 {
		return nil, cmp.Or(err, kimg.Errorf(kimg.ErrNotFound, kimg.Escape(ref, 300), "is an image of this machine; there is no registry to ask"))
	}
	var failures error
	for _, named := range full {
		var img *store.Image
		remote, perr := references([]string{"docker://" + named})
		if perr == nil {
			img, perr = a.bring(ctx, st, remote[0], named, p)
		}
		if perr == nil || context.Cause(ctx) != nil {
			return img, perr
		}
		if failures == nil || kimg.ClassOf(failures) == kimg.ErrNotFound {
			failures = perr // one that says more than that the image is not there
		}
	}
	if policy == commit.PullNewer && err == nil {
		a.log.WarnContext(ctx, "the registry could not be asked for a newer image", "image", ref, "error", kimg.Line(failures))
		return have, nil
	}
	return nil, failures
}

// inStore finds what the store has: for --all the index, if there is one.
func (a *app) inStore(ctx context.Context, st *store.Store, name string, p convertimage.Options) (*store.Image, error) {
	if !p.Single {
		return st.Record(ctx, name)
	}
	return st.Resolve(ctx, name, p.Platform)
}

// bring fetches one image.
func (a *app) bring(ctx context.Context, st *store.Store, src types.ImageReference, name string, p convertimage.Options) (img *store.Image, err error) {
	p.Store = func() (*store.Store, error) { return st, nil }
	err = a.withConverter(p, nil, func(c *convertimage.Converter) error {
		r, err := c.Convert(ctx, src, convertimage.InStore(name))
		if err == nil {
			img, err = st.Record(ctx, cmp.Or(r.ImageID, name))
		}
		if err == nil {
			img.Digest = r.NewDigest // the store may have had the image with another manifest first
		}
		return err
	})
	return img, err
}

// nameOf is what an image of a file or directory is called in the store; empty: nothing.
func nameOf(src types.ImageReference) string {
	if named := src.DockerReference(); named != nil {
		return named.String()
	}
	if src.Transport().Name() == "dir" {
		return ""
	}
	_, name, _ := strings.Cut(src.StringWithinTransport(), ":")
	if name, err := store.NormalizeName(name); err == nil {
		return name
	}
	return ""
}

// untagged is a name without its tag where it has a digest as well, which says more: as podman and docker take it.
func untagged(name string) string {
	named, err := reference.Parse(name)
	digested, ok := named.(reference.Canonical)
	if err != nil || !ok {
		return name
	}
	bare, err := reference.WithDigest(reference.TrimNamed(digested), digested.Digest())
	if err != nil {
		return name
	}
	return bare.String()
}

// candidates are the names under which registries may have an image, in the order in which they are asked; none for what can only be
// an image of this machine. A name without a registry means what the store has under it, else its alias in registries.conf, else
// one of the registries that are searched: which one, nobody is asked, so that with short-name-mode "enforcing" there may be only one.
func candidates(sys *types.SystemContext, name string, have *store.Image) ([]string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil || strings.HasPrefix(name, "sha256:") {
		return nil, nil
	}
	first, _, slash := strings.Cut(name, "/")
	if first == "localhost" && slash {
		return nil, nil
	}
	if slash && strings.ContainsAny(first, ".:") {
		return []string{reference.TagNameOnly(named).String()}, nil
	}
	if have != nil {
		for _, n := range have.Names {
			full, err := reference.ParseNormalizedNamed(n)
			if err == nil && reference.Domain(full) != "localhost" && strings.HasSuffix(n, "/"+tagged(name)) {
				return []string{n}, nil
			}
		}
	}
	repository, rest := name, ""
	if i := strings.IndexAny(name, "@:"); i >= 0 {
		repository, rest = name[:i], name[i:]
	}
	alias, _, err := sysregistriesv2.ResolveShortNameAlias(sys, repository)
	if err != nil {
		return nil, kimg.Errorf(kimg.ErrInvalid, "registries.conf", "%w", err)
	}
	if alias != nil {
		return []string{tagged(alias.Name() + rest)}, nil
	}
	search, err := sysregistriesv2.UnqualifiedSearchRegistries(sys)
	if err != nil {
		return nil, kimg.Errorf(kimg.ErrInvalid, "registries.conf", "%w", err)
	}
	mode, err := sysregistriesv2.GetShortNameMode(sys)
	switch {
	case err != nil:
		return nil, kimg.Errorf(kimg.ErrInvalid, "registries.conf", "%w", err)
	case len(search) == 0 && have == nil:
		return nil, kimg.Errorf(kimg.ErrNotFound, kimg.Escape(name, 300), "no such image in this store, and registries.conf names no registry to search")
	case len(search) > 1 && mode == types.ShortNameModeEnforcing:
		return nil, kimg.Errorf(kimg.ErrInvalid, kimg.Escape(name, 300), "may be in any of %s; say which", strings.Join(search, ", "))
	}
	full := make([]string, len(search))
	for i, registry := range search {
		full[i] = tagged(registry + "/" + name)
		if registry == "docker.io" {
			full[i] = reference.TagNameOnly(named).String()
		}
	}
	return full, nil
}

// tagged gives a name that says neither tag nor digest the tag latest.
func tagged(name string) string {
	last := name[strings.LastIndex(name, "/")+1:]
	if strings.ContainsAny(last, ":@") {
		return name
	}
	return name + ":latest"
}
