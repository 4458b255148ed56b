package main

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// historyOptions are the flags of kimg history.
type historyOptions struct {
	*app
	quiet, noTrunc, human bool
	format                string
}

func newHistory(a *app) *cobra.Command {
	o := &historyOptions{app: a}
	cmd := &cobra.Command{
		Use:   "history [flags] IMAGE|CTR",
		Short: "List the steps an image was made by",
		Long: `List the steps an image was made by, the newest first. Of a container, they are those of the image it would become, but for
the step that the commit itself is. A name that an image and a container both have means the container.

A template sees .ID (of the image, for its newest step), .Created, .CreatedSince, .CreatedBy, .Size (bytes), .Comment, .Author,
.Empty (the step made no layer), .DiffID and .Layer.`,
		Example: "  kimg history alpine\n  kimg history --no-trunc --format '{{.CreatedBy}}' CTR",
		Args:    args(1, 1),
		RunE:    a.withStore(anyNamespace, o.check, o.run),
	}
	f := cmd.Flags()
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print IDs only")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "print IDs and texts in full")
	f.BoolVarP(&o.human, "human", "H", true, "print sizes and times for people")
	f.StringVar(&o.format, "format", "", "print each step through a Go `template`; json means --json")
	return cmd
}

func (o *historyOptions) check([]string) error {
	if o.format == "json" {
		o.format, o.flags.json = "", true
	}
	_, err := parseTemplate(o.format)
	return err
}

// stepJSON is one step of a history.
type stepJSON struct {
	ID        string        `json:"id"` // of the image, for its newest step; else empty
	Created   *time.Time    `json:"created,omitempty"`
	CreatedBy string        `json:"createdBy"`
	Size      int64         `json:"size"` // of the uncompressed layer, in bytes; -1 when unknown
	Comment   string        `json:"comment"`
	Author    string        `json:"author"`
	Empty     bool          `json:"empty"`  // the step made no layer
	DiffID    digest.Digest `json:"diffID"` // of its layer, and the id of that in the store
	Layer     string        `json:"layer"`
}

// CreatedSince says roughly how long ago the step was.
func (s stepJSON) CreatedSince() string {
	if s.Created == nil {
		return "unknown"
	}
	return since(*s.Created)
}

func (o *historyOptions) run(ctx context.Context, st *store.Store, args []string) error {
	list, id, err := historyOf(ctx, st, args[0])
	if err != nil {
		return err
	}
	steps := []stepJSON{}
	for _, s := range slices.Backward(list) {
		steps = append(steps, stepJSON{
			ID: id, Created: s.Created, CreatedBy: s.CreatedBy, Size: s.Layer.Size, Comment: s.Comment, Author: s.Author, Empty: s.EmptyLayer,
			DiffID: s.Layer.DiffID, Layer: s.Layer.ID,
		})
		id = ""
	}
	switch {
	case o.flags.json:
		return o.printJSON(map[string]any{"history": steps})
	case o.format != "":
		return printTemplate(o.app, o.format, steps)
	case o.quiet:
		for _, s := range steps {
			o.println(o.id(s))
		}
		return nil
	}
	var rows [][]string
	for _, s := range steps {
		rows = append(rows, o.row(s))
	}
	o.table([]string{"ID", "CREATED", "CREATED BY", "SIZE", "COMMENT"}, rows)
	return nil
}

// historyOf finds what a name means. The id is that of the image; a container is none yet.
func historyOf(ctx context.Context, st *store.Store, name string) ([]store.HistoryStep, string, error) {
	c, img, err := containerOrImage(ctx, st, name)
	if err != nil {
		return nil, "", err
	}
	if c != nil {
		steps, err := c.History(ctx)
		return steps, "", kimg.Wrap(c.Name, err)
	}
	steps, err := img.History(ctx)
	return steps, img.ID, err
}

func (o *historyOptions) id(s stepJSON) string {
	if o.noTrunc {
		return orNone(s.ID, "<missing>")
	}
	return orNone(shortID(s.ID), "<missing>")
}

func (o *historyOptions) row(s stepJSON) []string {
	created, size, text := s.CreatedSince(), bytesText(s.Size), s.CreatedBy
	if !o.human {
		created, size = "unknown", strconv.FormatInt(s.Size, 10)
		if s.Created != nil {
			created = s.Created.Format(time.RFC3339)
		}
	}
	if r := []rune(text); !o.noTrunc && len(r) > 45 {
		text = string(r[:44]) + "…"
	}
	return []string{o.id(s), created, text, size, s.Comment}
}
