package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// containersOptions are the flags of kimg containers.
type containersOptions struct {
	*app
	all, quiet, noTrunc bool
	filters             []string
	format              string
}

func newContainers(a *app) *cobra.Command {
	o := &containersOptions{app: a}
	cmd := &cobra.Command{
		Use:     "containers [flags]",
		Aliases: []string{"ps"},
		Short:   "List working containers",
		Long: `List working containers. With --all also those that other tools made on the same store.

Filters: id=PREFIX, name=PART, ancestor=IMAGE, foreign=true|false. All that are given must hold.
A template sees .ID .Name .Names .Image .ImageID .Created .Mounted .Foreign, and buildah's names for the first four:
.ContainerID .ContainerName .ImageName .Builder.`,
		Example: "  kimg ps --all\n  kimg containers --quiet --filter ancestor=alpine\n  kimg containers --format '{{.Name}} {{.Image}}'",
		Args:    args(0, 0),
		RunE:    a.withStore(anyNamespace, o.check, o.run),
	}
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "also list containers that other tools made")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print IDs only")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "print IDs in full")
	f.StringArrayVarP(&o.filters, "filter", "f", nil, "list what matches `key=value` only; may repeat")
	f.StringVar(&o.format, "format", "", "print each container through a Go `template`")
	return cmd
}

func (o *containersOptions) check([]string) error {
	if _, err := parseFilters(o.filters, "id", "name", "ancestor", "foreign"); err != nil {
		return err
	}
	_, err := parseTemplate(o.format)
	return err
}

// containerRow is one container in a list. With --json members keep their text as it is; a template sees it escaped.
type containerRow struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Names   []string  `json:"names"`
	Image   string    `json:"image"`
	ImageID string    `json:"imageID"`
	Created time.Time `json:"created"`
	Mounted string    `json:"mountPoint,omitempty"`
	Foreign bool      `json:"foreign"` // made by another tool
}

// ContainerID, ContainerName, ImageName and Builder are what buildah's templates call these.
func (r containerRow) ContainerID() string   { return r.ID }
func (r containerRow) ContainerName() string { return r.Name }
func (r containerRow) ImageName() string     { return r.Image }
func (r containerRow) Builder() string {
	if r.Foreign {
		return ""
	}
	return "*"
}

func (o *containersOptions) run(ctx context.Context, st *store.Store, _ []string) error {
	rows, err := o.rows(ctx, st)
	if err != nil {
		return err
	}
	switch {
	case o.quiet:
		for _, r := range rows {
			o.println(r.ID)
		}
		return nil
	case o.flags.json:
		return o.printJSON(map[string]any{"containers": rows})
	case o.format != "":
		return printTemplate(o.app, o.format, rows)
	}
	var cells [][]string
	for _, r := range rows {
		id, imageID := r.ID, r.ImageID
		if !o.noTrunc {
			id, imageID = shortID(id), shortID(imageID)
		}
		cells = append(cells, []string{id, r.Builder(), imageID, orNone(r.Image, "scratch"), r.Name})
	}
	o.table([]string{"CONTAINER ID", "BUILDER", "IMAGE ID", "IMAGE NAME", "CONTAINER NAME"}, cells)
	return nil
}

func (o *containersOptions) rows(ctx context.Context, st *store.Store) ([]containerRow, error) {
	filters, err := parseFilters(o.filters, "id", "name", "ancestor", "foreign")
	if err != nil {
		return nil, err
	}
	var ancestor string
	if ref, ok := filters["ancestor"]; ok {
		img, err := image(ctx, st, ref)
		if err != nil {
			return nil, err
		}
		ancestor = img.ID
	}
	list, err := st.Containers(ctx)
	if err != nil {
		return nil, err
	}
	names, err := imageNames(ctx, st)
	if err != nil {
		return nil, err
	}
	rows := []containerRow{}
	for _, c := range list {
		r := containerRow{ID: c.ID, Name: c.Name, Names: c.Names, Image: names[c.ImageID], ImageID: c.ImageID, Created: c.Created, Foreign: c.Foreign}
		if path, n, err := c.Mounted(); err == nil && n > 0 {
			r.Mounted = path
		}
		foreign, byKind := filters["foreign"]
		if r.Foreign && !o.all && !byKind || byKind && foreign != boolText(r.Foreign) ||
			!strings.HasPrefix(r.ID, filters["id"]) || !strings.Contains(r.Name, filters["name"]) || ancestor != "" && r.ImageID != ancestor {
			continue
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// imageNames returns a name for each image of the store.
func imageNames(ctx context.Context, st *store.Store) (map[string]string, error) {
	images, err := st.Images(ctx)
	if err != nil {
		return nil, err
	}
	names := make(map[string]string, len(images))
	for _, img := range images {
		if len(img.Names) > 0 {
			names[img.ID] = img.Names[0]
		}
	}
	return names, nil
}

// parseFilters parses key=value filters with the keys that are known; the last one of a key counts.
func parseFilters(filters []string, known ...string) (map[string]string, error) {
	parsed := map[string]string{}
	for _, f := range filters {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return nil, usagef("--filter", "%s is not key=value", kimg.Quote(f))
		}
		if !slices.Contains(known, key) {
			return nil, usagef("--filter", "%s is none of %s", kimg.Quote(key), strings.Join(known, ", "))
		}
		parsed[key] = value
	}
	return parsed, nil
}
