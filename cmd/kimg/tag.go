package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/kimg/kimg/store"
)

func newTag(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "tag IMAGE NAME…",
		Short:   "Give an image more names",
		Long:    "Give an image more names. A name that another image has moves to this one.",
		Example: "  kimg tag 4f0c registry.example/app:2 registry.example/app:latest",
		Args:    args(2, -1),
		RunE: a.withStore(anyNamespace, nil, func(ctx context.Context, st *store.Store, args []string) error {
			ref, err := imageName(args[0])
			if err != nil {
				return err
			}
			img, err := st.Tag(ctx, ref, args[1:]...)
			return a.printTagged(ctx, st, img, err)
		}),
	}
}

func newUntag(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "untag IMAGE [NAME…]",
		Short:   "Take names from an image",
		Long:    "Take names from an image, all of them when none is given. The image stays.",
		Example: "  kimg untag registry.example/app:2",
		Args:    args(1, -1),
		RunE: a.withStore(anyNamespace, nil, func(ctx context.Context, st *store.Store, args []string) error {
			ref, err := imageName(args[0])
			if err != nil {
				return err
			}
			img, err := st.Untag(ctx, ref, args[1:]...)
			return a.printTagged(ctx, st, img, err)
		}),
	}
}

// printTagged prints what an image is called now, as JSON only.
func (a *app) printTagged(ctx context.Context, st *store.Store, img *store.Image, err error) error {
	if err != nil || !a.flags.json {
		return err
	}
	described, err := describe(ctx, st, img)
	if err != nil {
		return err
	}
	return a.printJSON(described[0])
}
