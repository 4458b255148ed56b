package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/containers/storage/pkg/idtools"
	"github.com/containers/storage/types"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/convert/docker"
	convertimage "github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/store"
)

// fromOptions are the flags of kimg from.
type fromOptions struct {
	*app
	name, pull, platform string
	cidFile              string
	uidMap, gidMap       []string
	subUID, subGID       string
	remote               registryFlags

	fetched convertimage.Options
}

func newFrom(a *app) *cobra.Command {
	o := &fromOptions{app: a}
	cmd := &cobra.Command{
		Use:   "from [flags] IMAGE|scratch",
		Short: "Make a working container from an image and print its name",
		Long: `Make a working container from an image and print its name. IMAGE is the name of an image of the store, or in a registry, or any
place kimg copy knows, from where it is fetched into the store first.`,
		Example: "  kimg from alpine\n  kimg from --name build --platform linux/arm64 registry.example/app:1\n  kimg from scratch",
		Args:    args(1, 1),
		RunE:    a.withStore(anyNamespace, o.check, o.run),
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "`name` of the container (default: made from the image's)")
	f.StringVar(&o.pull, "pull", "missing", "when to ask a registry: `policy` missing, always, newer or never")
	f.StringVar(&o.platform, "platform", "", "choose the image for `os/arch[/variant]`")
	f.StringVar(&o.cidFile, "cidfile", "", "write the container's ID to a new `file`")
	f.StringArrayVar(&o.uidMap, "uidmap", nil, "map user ids: `container:host:size`; may repeat")
	f.StringArrayVar(&o.gidMap, "gidmap", nil, "map group ids: `container:host:size`; may repeat (default: as --uidmap)")
	f.StringVar(&o.subUID, "subuidname", "", "map the user ids that /etc/subuid gives to `name`")
	f.StringVar(&o.subGID, "subgidname", "", "map the group ids that /etc/subgid gives to `name` (default: as --subuidname)")
	o.remote.register(cmd, "", "the registry")
	return cmd
}

func (o *fromOptions) check(args []string) error {
	if err := checkPolicy("--pull", o.pull); err != nil {
		return err
	}
	platform, err := parsePlatform(o.platform)
	if err != nil {
		return err
	}
	o.fetched = convertimage.Options{Keep: true, Single: true, Platform: platform, Jobs: o.flags.jobs, NoSync: o.flags.noSync}
	if o.fetched.Sys, o.fetched.Retries, err = o.remote.system(o.app); err != nil {
		return err
	}
	if (len(o.uidMap) > 0 || len(o.gidMap) > 0) && (o.subUID != "" || o.subGID != "") {
		return usagef("--subuidname", "cannot be used together with --uidmap and --gidmap")
	}
	_, err = references(args)
	return err
}

// containerJSON is one working container in results.
type containerJSON struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Image   string `json:"image"`   // name it was made from, scratch for none, empty for an image without a name
	ImageID string `json:"imageID"` // empty for scratch
}

func (o *fromOptions) run(ctx context.Context, st *store.Store, args []string) error {
	maps, err := o.idMaps()
	if err != nil {
		return err
	}
	base, asked, err := o.base(ctx, st, args[0])
	if err != nil {
		return err
	}
	file, err := newResultFile(o.cidFile, 4<<10, mustBeNew)
	if err != nil {
		return err
	}
	defer file.abort()
	c, err := st.NewContainer(ctx, base, store.ContainerOptions{Name: o.name, ImageName: asked, UIDMap: maps.UIDMap, GIDMap: maps.GIDMap})
	if err != nil {
		return err
	}
	if err := file.write([]byte(c.ID)); err != nil {
		return joined(err, c.Remove(context.WithoutCancel(ctx)))
	}
	if o.flags.json {
		return o.printJSON(containerJSON{ID: c.ID, Name: c.Name, Image: asked, ImageID: c.ImageID})
	}
	o.println(c.Name)
	return nil
}

// base finds the image, nil for scratch, and the name by which it was asked for.
func (o *fromOptions) base(ctx context.Context, st *store.Store, text string) (img *store.Image, asked string, err error) {
	if text == scratch {
		return nil, scratch, nil
	}
	refs, err := references([]string{text})
	if err != nil {
		return nil, "", err
	}
	if asked = nameOf(refs[0]); convertimage.NamesStore(refs[0]) {
		asked = refs[0].StringWithinTransport()
	}
	err = o.oneStep("pull", cmp.Or(asked, text), "auto", false, func(s *step) error {
		o.fetched.Progress, o.fetched.Logger = s.layer, o.log
		img, err = o.fetch(ctx, st, text, commit.PullPolicy(o.pull), o.fetched)
		return err
	})
	return img, asked, err
}

// scratch is no image: a container of it has no layer below its own.
const scratch = "scratch"

// idMaps parses the flags that map ids; an empty map is the identity.
func (o *fromOptions) idMaps() (*types.IDMappingOptions, error) {
	if len(o.uidMap)+len(o.gidMap) == 0 && o.subUID == "" && o.subGID == "" {
		return &types.IDMappingOptions{}, nil
	}
	maps, err := types.ParseIDMapping(o.uidMap, o.gidMap, o.subUID, o.subGID)
	switch {
	case err != nil && (o.subUID != "" || o.subGID != ""):
		return nil, &kimg.Error{Class: kimg.ErrDenied, Object: "subordinate ids", Err: err}
	case err != nil:
		return nil, usagef("--uidmap", "%w", err)
	}
	if err := mappable("/proc/self/uid_map", maps.UIDMap); err != nil {
		return nil, err
	}
	return maps, mappable("/proc/self/gid_map", maps.GIDMap)
}

// mappable refuses a map to ids that the namespace kimg runs in does not have.
func mappable(file string, m []idtools.IDMap) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return kimg.Wrap(file, err)
	}
	for _, r := range m {
		left := r.Size // every id in at most one line of the namespace's map
		for line := range strings.Lines(string(data)) {
			var inside, outside, size int
			if n, _ := fmt.Sscan(line, &inside, &outside, &size); n == 3 {
				left -= max(0, min(r.HostID+r.Size, inside+size)-max(r.HostID, inside))
			}
		}
		if left > 0 {
			return kimg.Errorf(kimg.ErrDenied, "subordinate ids", "%d of the ids from %d to %d are not in %s",
				left, r.HostID, r.HostID+r.Size-1, file)
		}
	}
	return nil
}

// parsePlatform parses os/arch[/variant]; nothing is nil.
func parsePlatform(text string) (*ispec.Platform, error) {
	if text == "" {
		return nil, nil
	}
	parts := strings.Split(strings.ToLower(text), "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return nil, usagef("--platform", "%s is not os/arch[/variant]", kimg.Quote(text))
	}
	p := &ispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	named := copydata.Settings{Image: docker.Image{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}}
	if err := named.Check(copydata.Settings{}); err != nil {
		return nil, usagef("--platform", "%w", err)
	}
	return p, nil
}
