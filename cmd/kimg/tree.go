package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kimg/kimg/store"
)

// treeOptions are the flags of kimg tree.
type treeOptions struct {
	*app
	whatRequires bool
}

func newTree(a *app) *cobra.Command {
	o := &treeOptions{app: a}
	cmd := &cobra.Command{
		Use:   "tree [flags] IMAGE",
		Short: "Show the layers of an image and who shares them",
		Long: `Show the layers of an image, the base first, with their sizes, the images that end with them and those that have them below
others. With --whatrequires, show what stands on the image instead: layers, of images and containers, and images.`,
		Example: "  kimg tree app:1\n  kimg tree --whatrequires base",
		Args:    args(1, 1),
		RunE:    a.withStore(anyNamespace, nil, o.run),
	}
	cmd.Flags().BoolVar(&o.whatRequires, "whatrequires", false, "show the layers and images that stand on the image")
	return cmd
}

// treeLayerJSON is a layer in a tree.
type treeLayerJSON struct {
	storeLayerJSON
	TopOf    []string         `json:"topOf"`    // names, or ids, of the images that end with it
	SharedBy []string         `json:"sharedBy"` // of those that have it below others
	Children []*treeLayerJSON `json:"children"` // with --whatrequires
}

func newTreeLayer(l *store.TreeLayer) *treeLayerJSON {
	v := &treeLayerJSON{storeLayerJSON: storeLayerJSON(l.LayerInfo), TopOf: namesOf(l.TopOf), SharedBy: namesOf(l.SharedBy), Children: []*treeLayerJSON{}}
	for _, child := range l.Children {
		v.Children = append(v.Children, newTreeLayer(child))
	}
	return v
}

// namesOf names images: all their names, or the id of one without.
func namesOf(images []*store.Image) []string {
	names := []string{}
	for _, img := range images {
		names = append(names, img.Names...)
		if len(img.Names) == 0 {
			names = append(names, img.ID)
		}
	}
	return names
}

func (o *treeOptions) run(ctx context.Context, st *store.Store, args []string) error {
	img, err := image(ctx, st, args[0])
	if err != nil {
		return err
	}
	var found []*store.TreeLayer
	if o.whatRequires {
		top, err := img.Dependents(ctx)
		if err != nil {
			return err
		}
		found = append(found, top)
	} else if found, err = img.Tree(ctx); err != nil {
		return err
	}
	layers := []*treeLayerJSON{}
	for _, l := range found {
		layers = append(layers, newTreeLayer(l))
	}
	described, err := describe(ctx, st, img)
	if err != nil {
		return err
	}
	if o.flags.json {
		return o.printJSON(struct {
			imageJSON
			Layers []*treeLayerJSON `json:"layers"`
		}{described[0], layers})
	}
	o.printf("Image ID: %s\nTags:     %s\nSize:     %s\nImage Layers\n", shortID(img.ID), escape("["+strings.Join(img.Names, ", ")+"]"), bytesText(described[0].Size))
	o.branches("", layers)
	return nil
}

// branches prints layers behind a prefix, each with what stands on it.
func (o *treeOptions) branches(prefix string, layers []*treeLayerJSON) {
	for i, l := range layers {
		fork, below := "├── ", "│   "
		if i == len(layers)-1 {
			fork, below = "└── ", "    "
		}
		line := prefix + fork + "ID: " + shortID(l.ID) + " Size: " + bytesText(l.Size)
		if len(l.TopOf) > 0 {
			line += " Top Layer of: [" + escape(strings.Join(l.TopOf, ", ")) + "]"
		}
		if len(l.SharedBy) > 0 && !o.whatRequires {
			line += " Shared by: [" + escape(strings.Join(l.SharedBy, ", ")) + "]"
		}
		o.printf("%s\n", line)
		o.branches(prefix+below, l.Children)
	}
}
