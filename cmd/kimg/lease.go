package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

// leaseOptions are the flags of kimg lease and its commands.
type leaseOptions struct {
	*app
	ttl                        time.Duration
	owner, purpose, format     string
	quiet, noTrunc, all, force bool
}

func newLease(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "lease",
		Short: "Keep images from being removed",
		Long: `Keep images from being removed. A lease holds an image, with all its layers, whoever cleans the store up: kimg, podman or
buildah. It ends by its time, by kimg lease rm or, when a program holds it, with that program. kimg gc removes what is over.`,
		Example: "  kimg lease add --ttl 24h --owner nightly base:1\n  kimg lease ls",
	}, newLeaseLs(&leaseOptions{app: a}), newLeaseAdd(&leaseOptions{app: a}), newLeaseRm(&leaseOptions{app: a}))
}

func newLeaseLs(o *leaseOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls [flags]",
		Aliases: []string{"list"},
		Short:   "List leases",
		Long: `List leases. A state is active, expired (its time is over) or dead (the program that held it is gone).

A template sees .ID .Name .Image .ImageID .Owner .Purpose .Created .Expires .Detached .State.`,
		Example: "  kimg lease ls --format '{{.ID}} {{.State}}'",
		Args:    args(0, 0),
		RunE: o.withStore(anyNamespace, func([]string) error {
			_, err := parseTemplate(o.format)
			return err
		}, o.list),
	}
	f := cmd.Flags()
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print IDs only")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "print IDs in full")
	f.StringVar(&o.format, "format", "", "print each lease through a Go `template`")
	return cmd
}

func newLeaseAdd(o *leaseOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "add [flags] REF",
		Short:   "Take a lease of an image and print its ID",
		Long:    "Take a lease of an image and print its ID. It ends by its time, or by kimg lease rm.",
		Example: "  kimg lease add --ttl 24h --owner nightly base:1",
		Args:    args(1, 1),
		RunE: o.withStore(anyNamespace, func([]string) error {
			if o.ttl <= 0 {
				return usagef("--ttl", "%v is no time to hold an image", o.ttl)
			}
			return nil
		}, o.add),
	}
	f := cmd.Flags()
	f.DurationVar(&o.ttl, "ttl", time.Hour, "`time` until it is over, as 90m or 24h")
	f.StringVar(&o.owner, "owner", "", "`name` of who wants it")
	f.StringVar(&o.purpose, "purpose", "", "`text` about what it is for")
	return cmd
}

func newLeaseRm(o *leaseOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rm [flags] LEASE…|--all",
		Short:   "Give leases back",
		Long:    "Give leases back and print the ID of each. LEASE is its ID, the beginning of its ID or its name.",
		Example: "  kimg lease rm 4f0c\n  kimg lease rm --all",
		Args:    args(0, -1),
		RunE:    o.withStore(anyNamespace, func(args []string) error { return namesOrAll("lease rm", o.all, args) }, o.remove),
	}
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "remove every lease that no running program holds")
	f.BoolVarP(&o.force, "force", "f", false, "remove also what a running program holds")
	return cmd
}

// leaseRow is one lease in a list.
type leaseRow struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"` // which other tools show as a container
	Image    string    `json:"image"`
	ImageID  string    `json:"imageID"`
	Owner    string    `json:"owner"`
	Purpose  string    `json:"purpose"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	Detached bool      `json:"detached"` // ends by its time only; else also with the program that holds it
	State    string    `json:"state"`    // active, expired or dead
}

func (o *leaseOptions) rows(ctx context.Context, st *store.Store) ([]leaseRow, error) {
	leases, err := st.Leases(ctx)
	if err != nil {
		return nil, err
	}
	names, err := imageNames(ctx, st)
	if err != nil {
		return nil, err
	}
	rows := []leaseRow{}
	for _, l := range leases {
		rows = append(rows, leaseRow{
			ID: l.ID, Name: l.Name, Image: names[l.ImageID], ImageID: l.ImageID, Owner: l.Owner, Purpose: l.Purpose,
			Created: l.Created.UTC(), Expires: l.Expires, Detached: l.Detached, State: string(l.State),
		})
	}
	return rows, nil
}

func (o *leaseOptions) list(ctx context.Context, st *store.Store, _ []string) error {
	rows, err := o.rows(ctx, st)
	if err != nil {
		return err
	}
	switch {
	case o.flags.json:
		return o.printJSON(map[string]any{"leases": rows})
	case o.format != "":
		for i, r := range rows {
			rows[i].Owner, rows[i].Purpose = escape(r.Owner), escape(r.Purpose)
		}
		return printTemplate(o.app, o.format, rows)
	}
	var cells [][]string
	for _, r := range rows {
		id := r.ID
		if !o.noTrunc && !o.quiet {
			id = shortID(id)
		}
		cells = append(cells, []string{id, orNone(r.Image, shortID(r.ImageID)), r.State, r.Expires.Format(time.RFC3339), orNone(r.Owner, "-"), r.Purpose})
	}
	if o.quiet {
		for _, c := range cells {
			o.println(c[0])
		}
		return nil
	}
	o.table([]string{"LEASE ID", "IMAGE", "STATE", "EXPIRES", "OWNER", "PURPOSE"}, cells)
	return nil
}

func (o *leaseOptions) add(ctx context.Context, st *store.Store, args []string) error {
	ref, err := imageName(args[0])
	if err != nil {
		return err
	}
	l, err := st.Lease(ctx, store.LeaseOptions{Image: ref, Owner: o.owner, Purpose: o.purpose, TTL: o.ttl, Detached: true})
	if err != nil {
		return err
	}
	if !o.flags.json {
		o.println(l.ID())
		return nil
	}
	rows, err := o.rows(ctx, st)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if r.ID == l.ID() {
			return o.printJSON(r)
		}
	}
	return kimg.Errorf(kimg.ErrNotFound, "lease "+l.ID(), "somebody has removed it at once")
}

func (o *leaseOptions) remove(ctx context.Context, st *store.Store, args []string) error {
	ids := []string{}
	if o.all {
		all, err := st.Leases(ctx)
		if err != nil {
			return err
		}
		for _, l := range all {
			if o.force || l.Detached || l.State != store.LeaseActive {
				args = append(args, l.ID)
			}
		}
	}
	for _, arg := range args {
		id, err := st.RemoveLease(ctx, arg, o.force)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	return o.printNames("removed", ids)
}
