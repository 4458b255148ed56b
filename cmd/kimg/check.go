package main

import (
	"cmp"
	"context"

	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store"
)

func newCheck(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Look for damage in the store",
		Long: `Look for damage in the store and change nothing. Each problem is one line; with any, the exit code is 1 and the class is
damaged.`,
		Example: "  kimg check --json",
		Args:    args(0, 0),
		RunE:    a.withStore(anyNamespace, nil, a.runCheck),
	}
}

func (a *app) runCheck(ctx context.Context, st *store.Store, _ []string) error {
	problems, err := st.Check(ctx)
	if err != nil {
		return err
	}
	if err := a.printProblems(problems); err != nil {
		return err
	}
	if len(problems) > 0 {
		return kimg.Errorf(kimg.ErrDamaged, st.Info().Root, "%d problems", len(problems))
	}
	return nil
}

// problemJSON is one problem of the store.
type problemJSON struct {
	Kind   string     `json:"kind"` // layer, image, container, state, intent or staging
	ID     string     `json:"id"`
	Name   string     `json:"name,omitempty"`
	Class  kimg.Class `json:"class"`
	Text   string     `json:"text"`
	Advice string     `json:"advice"` // what to run or do next
}

func (a *app) printProblems(problems []store.Problem) error {
	list := make([]problemJSON, len(problems))
	for i, p := range problems {
		list[i] = problemJSON(p)
	}
	if a.flags.json {
		return a.printJSON(map[string]any{"problems": list})
	}
	for _, p := range list {
		a.println(p.Kind + " " + cmp.Or(p.Name, p.ID) + ": " + string(p.Class) + ": " + p.Text + "; " + p.Advice)
	}
	return nil
}
