package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// imagesOptions are the flags of kimg images.
type imagesOptions struct {
	*app
	quiet, digests, noTrunc bool
	filters                 []string
	format                  string
}

// imageFilters are the keys --filter knows.
var imageFilters = []string{"before", "dangling", "id", "label", "reference", "since"}

func newImages(a *app) *cobra.Command {
	o := &imagesOptions{app: a}
	cmd := &cobra.Command{
		Use:   "images [flags] [IMAGE]",
		Short: "List images",
		Long: `List images, the newest first. An image with several names has a line for each.

Filters: before=IMAGE, since=IMAGE, dangling=true|false, id=PREFIX, label=NAME[=VALUE], reference=PATTERN. All that are given
must hold. A template sees .ID .Names .Repository .Tag .Digest .Created .CreatedSince .Size (bytes) .ReadOnly.`,
		Example: "  kimg images --digests\n  kimg images --quiet --filter dangling=true\n  kimg images --format '{{.Repository}}:{{.Tag}} {{.Size}}'",
		Args:    args(0, 1),
		RunE:    a.withStore(anyNamespace, o.check, o.run),
	}
	f := cmd.Flags()
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print IDs only")
	f.BoolP("all", "a", false, "for habit's sake: every image is listed in any case")
	f.BoolVar(&o.digests, "digests", false, "print manifest digests too")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "print IDs in full")
	f.StringArrayVarP(&o.filters, "filter", "f", nil, "list what matches `key=value` only; may repeat")
	f.StringVar(&o.format, "format", "", "print each image through a Go `template`")
	return cmd
}

func (o *imagesOptions) check([]string) error {
	filters, err := parseFilters(o.filters, imageFilters...)
	if err != nil {
		return err
	}
	if v, ok := filters["dangling"]; ok && v != "true" && v != "false" {
		return usagef("--filter", "dangling is true or false, not %s", kimg.Quote(v))
	}
	if _, err := path.Match(filters["reference"], ""); err != nil {
		return usagef("--filter", "%s: %w", kimg.Quote(filters["reference"]), err)
	}
	_, err = parseTemplate(o.format)
	return err
}

// imageJSON is one image in results.
type imageJSON struct {
	ID       string        `json:"id"`
	Names    []string      `json:"names"`
	Digest   digest.Digest `json:"digest"`
	Created  time.Time     `json:"created"`
	Size     int64         `json:"size"` // of the uncompressed layers, in bytes; -1 when unknown
	ReadOnly bool          `json:"readOnly"`
}

// imageRow is one line of the list: an image under one of its names.
type imageRow struct {
	imageJSON
	Repository, Tag string
	CreatedSince    string
}

func (o *imagesOptions) run(ctx context.Context, st *store.Store, args []string) error {
	list, err := o.list(ctx, st, args)
	if err != nil {
		return err
	}
	if o.quiet {
		for _, img := range list {
			o.println(o.id(img.ID))
		}
		return nil
	}
	images, err := describe(ctx, st, list...)
	if err != nil {
		return err
	}
	switch {
	case o.flags.json:
		return o.printJSON(map[string]any{"images": images})
	case o.format != "":
		return printTemplate(o.app, o.format, rowsOf(images))
	}
	heading := []string{"REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"}
	var cells [][]string
	for _, r := range rowsOf(images) {
		cells = append(cells, []string{r.Repository, r.Tag, orNone(string(r.Digest), none), o.id(r.ID), r.CreatedSince, bytesText(r.Size)})
	}
	if !o.digests {
		heading = slices.Delete(heading, 2, 3)
		for i := range cells {
			cells[i] = slices.Delete(cells[i], 2, 3)
		}
	}
	o.table(heading, cells)
	return nil
}

func (o *imagesOptions) id(id string) string {
	if o.noTrunc {
		return id
	}
	return shortID(id)
}

// none stands for what an image does not have.
const none = "<none>"

// rowsOf gives each name of each image a row.
func rowsOf(images []imageJSON) []imageRow {
	var rows []imageRow
	for _, img := range images {
		names := img.Names
		if len(names) == 0 {
			names = []string{""}
		}
		for _, name := range names {
			r := imageRow{imageJSON: img, Repository: none, Tag: none, CreatedSince: since(img.Created)}
			if name != "" {
				r.Repository, r.Tag = splitName(name)
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// splitName splits a full name into repository and tag.
func splitName(name string) (repository, tag string) {
	name, _, _ = strings.Cut(name, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:]
	}
	return name, none
}

// describe says what is listed of images. A damaged one does not hide the others: its size is unknown.
func describe(ctx context.Context, st *store.Store, list ...*store.Image) ([]imageJSON, error) {
	sizes, err := st.Sizes(ctx, list...)
	if err != nil {
		return nil, err
	}
	images := make([]imageJSON, len(list))
	for i, img := range list {
		images[i] = imageJSON{
			ID: img.ID, Names: orEmpty(img.Names), Digest: img.Digest, Created: img.Created, Size: sizes[i], ReadOnly: img.ReadOnly,
		}
	}
	return images, nil
}

// list returns the images that were asked for, the newest first.
func (o *imagesOptions) list(ctx context.Context, st *store.Store, args []string) ([]*store.Image, error) {
	filters, err := parseFilters(o.filters, imageFilters...)
	if err != nil {
		return nil, err
	}
	all, err := st.Images(ctx)
	if err != nil {
		return nil, err
	}
	var asked, before, after *store.Image
	for _, want := range []struct {
		ref string
		img **store.Image
	}{{strings.Join(args, ""), &asked}, {filters["before"], &before}, {filters["since"], &after}} {
		if want.ref == "" {
			continue
		}
		ref, err := imageName(want.ref)
		if err == nil {
			*want.img, err = st.Record(ctx, ref)
		}
		if err != nil {
			return nil, err
		}
	}
	kept := []*store.Image{}
	for _, img := range all {
		dangling, byNames := filters["dangling"]
		if asked != nil && img.ID != asked.ID || before != nil && !img.Created.Before(before.Created) ||
			after != nil && !img.Created.After(after.Created) || !strings.HasPrefix(img.ID, filters["id"]) ||
			byNames && dangling != boolText(len(img.Names) == 0) || !matchesName(img.Names, filters["reference"]) {
			continue
		}
		if label, ok := filters["label"]; ok {
			has, err := hasLabel(ctx, img, label)
			if err != nil {
				return nil, err
			}
			if !has {
				continue
			}
		}
		kept = append(kept, img)
	}
	slices.SortStableFunc(kept, func(a, b *store.Image) int { return b.Created.Compare(a.Created) })
	return kept, nil
}

// matchesName matches a pattern against whole names, names without the registry, and names without the tag.
func matchesName(names []string, pattern string) bool {
	if pattern == "" {
		return true
	}
	return slices.ContainsFunc(names, func(name string) bool {
		repository, _ := splitName(name)
		for _, candidate := range []string{name, repository, path.Base(name), path.Base(repository)} {
			if ok, err := path.Match(pattern, candidate); err == nil && ok {
				return true
			}
		}
		return false
	})
}

func hasLabel(ctx context.Context, img *store.Image, label string) (bool, error) {
	data, err := img.Config(ctx)
	switch kimg.ClassOf(err) {
	case "":
	case kimg.ErrUnsupported, kimg.ErrNotFound: // no configuration: no labels
		return false, nil
	default:
		return false, err
	}
	var c struct {
		Config struct{ Labels map[string]string } `json:"config"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return false, kimg.Errorf(kimg.ErrInvalid, img.ID, "%w", err)
	}
	name, value, hasValue := strings.Cut(label, "=")
	got, ok := c.Config.Labels[name]
	return ok && (!hasValue || got == value), nil
}

// since says how long ago something was, roughly.
func since(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	d := time.Since(t)
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{365 * 24 * time.Hour, "year"}, {30 * 24 * time.Hour, "month"}, {24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := d / u.unit; n == 1 {
			return "1 " + u.name + " ago"
		} else if n > 1 {
			return fmt.Sprintf("%d %ss ago", n, u.name)
		}
	}
	return "now"
}

// bytesText is a size in decimal units.
func bytesText(n int64) string {
	if n < 0 {
		return "unknown"
	}
	size, units := float64(n), []string{"B", "kB", "MB", "GB", "TB"}
	for size >= 1000 && len(units) > 1 {
		size, units = size/1000, units[1:]
	}
	return fmt.Sprintf("%.3g %s", size, units[0])
}
