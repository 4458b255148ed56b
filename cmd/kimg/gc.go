package main

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// gcOptions are the flags of kimg gc.
type gcOptions struct {
	*app
	dryRun  bool
	filters []string
	before  time.Time
}

func newGC(a *app) *cobra.Command {
	o := &gcOptions{app: a}
	cmd := &cobra.Command{
		Use:   "gc [flags]",
		Short: "Remove what nobody needs: old leases, layers without an image, remains of killed programs",
		Long: `Remove what nobody needs, and list it first: leases that are over, layers that no image, container or running change needs,
and what killed programs left half done. Images and containers are not removed.

A program that builds an image has its layers in the store before the image is there. So a layer is removed only when it is a
day old, or was made before the time of --filter until=: a time, a number of seconds since 1970, or how long ago, as 36h.`,
		Example: "  kimg gc --dry-run\n  kimg gc --filter until=168h",
		Args:    args(0, 0),
		RunE:    a.withStore(anyNamespace, o.check, o.run),
	}
	cmd.Flags().BoolVarP(&o.dryRun, "dry-run", "n", false, "list only")
	cmd.Flags().StringArrayVarP(&o.filters, "filter", "f", nil, "remove layers of before `until=time` only (default: until=24h)")
	return cmd
}

func (o *gcOptions) check([]string) error {
	filters, err := parseFilters(o.filters, "until")
	if err != nil {
		return err
	}
	if text, ok := filters["until"]; ok {
		o.before, err = parseUntil(text, time.Now())
	}
	return err
}

// parseUntil reads a time as podman's filters write it.
func parseUntil(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		t, err := moment("--filter", seconds)
		if err != nil {
			return time.Time{}, err
		}
		return *t, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("--filter", "until=%s is neither a time nor how long ago", kimg.Quote(text))
}

// garbageJSON is one thing nobody needs.
type garbageJSON struct {
	Kind    string `json:"kind"` // lease, layer, staging or file
	ID      string `json:"id"`   // of a lease or a layer, else a path
	Size    int64  `json:"size"` // of a layer; -1: unknown
	Why     string `json:"why"`
	Removed bool   `json:"removed"`
}

func (o *gcOptions) run(ctx context.Context, st *store.Store, _ []string) error {
	found, err := st.Garbage(ctx, o.before)
	if err != nil {
		return err
	}
	if !o.flags.json {
		for _, g := range found {
			o.println(g.Kind + " " + g.ID + ": " + g.Why)
		}
		if err := o.stdout.Flush(); err != nil {
			return kimg.Wrap("standard output", err)
		}
	}
	var removed []store.Garbage
	if !o.dryRun && len(found) > 0 {
		removed, err = st.Collect(ctx, found, o.before)
	}
	gone := map[string]bool{}
	for _, g := range removed {
		gone[g.ID] = true
	}
	list := []garbageJSON{}
	for _, g := range found {
		list = append(list, garbageJSON{g.Kind, g.ID, g.Size, g.Why, gone[g.ID]})
		if !o.dryRun && err == nil && !gone[g.ID] {
			o.log.WarnContext(ctx, "somebody needs it, or has removed it, meanwhile", g.Kind, g.ID)
		}
	}
	if err == nil && o.flags.json {
		err = o.printJSON(map[string]any{"garbage": list})
	}
	return err
}
