package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/kimg/kimg/internal/testenv"
)

// conversions are many old images that share their base, each in a dir: of its own, to be put into one OCI layout.
type conversions struct {
	*site
	images, base int
}

// convert compares one kimg process, which remembers nothing from earlier, with one skopeo for each image: with the cache
// that the first of them fills, and without.
func (b *bench) convert(ctx context.Context, place string, rounds, coldRounds int) error {
	kimg, err := filepath.Abs(b.kimg)
	if err != nil {
		return err
	}
	g, err := newGround(place)
	if err != nil {
		return err
	}
	defer g.remove()
	c := conversions{site: &site{ctx: ctx, kimg: kimg, dir: g.dir}, images: 50, base: 10}
	// In a process of its own: how much memory this one ever had would count as what its children have.
	if err := c.helper("legacy", filepath.Join(c.dir, "images"), strconv.Itoa(c.images), strconv.Itoa(c.base)); err != nil {
		return err
	}
	runs := map[string][]usage{}
	for i := range rounds + 1 { // the first round warms up and does not count
		order := []string{"kimg", "skopeo"}
		if i > 0 && i <= coldRounds {
			order = append(order, "skopeo, no cache")
		}
		if i%2 == 1 {
			slices.Reverse(order)
		}
		for _, name := range order {
			u, err := c.measure(name)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if i > 0 {
				runs[name] = append(runs[name], u)
			}
		}
	}
	out := tabwriter.NewWriter(os.Stdout, 2, 8, 2, ' ', 0)
	defer out.Flush()
	fmt.Fprintln(out, "convert\tCPU median\tmin\tmax\twall\tpeak MiB\tkimg's part of its CPU time")
	ours := middle(cpu(runs["kimg"]))
	for _, r := range []struct {
		name string
		bar  float64
	}{{"kimg", 0}, {"skopeo", 0.5}, {"skopeo, no cache", 0.02}} {
		if len(runs[r.name]) == 0 {
			continue
		}
		all, note := cpu(runs[r.name]), ""
		if part := ratio(ours, middle(all)); r.bar > 0 {
			note = fmt.Sprintf("%.3f of at most %.2f", part, r.bar)
			if part > r.bar {
				note = fmt.Sprintf("%.3f > %.2f", part, r.bar)
			}
		}
		most := peak(runs[r.name]) >> 10
		if r.name == "kimg" && most > 150 {
			note = "over 150 MiB"
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", r.name, ms(middle(all)), ms(all[0]), ms(all[len(all)-1]), ms(middle(wall(runs[r.name]))), most, note)
	}
	return nil
}

func (c conversions) image(i int) string { return filepath.Join(c.dir, "images", strconv.Itoa(i)) }

// skopeos runs skopeo for each image. The cache of root lies in one place on every machine, so it is replaced in a mount
// namespace; elsewhere it follows XDG_DATA_HOME.
const skopeos = `set -eu
mkdir "$NEW.cache"
if [ "$(id -u)" = 0 ]; then mkdir -p /var/lib/containers/cache; mount --bind "$NEW.cache" /var/lib/containers/cache; fi
for i in "$IMAGES"/*; do
	[ -z "$COLD" ] || rm -rf "$NEW.cache"/*
	skopeo --insecure-policy copy -q "dir:$i" "oci:$NEW:i${i##*/}"
done`

// measure converts all images into a new layout.
func (c conversions) measure(name string) (usage, error) {
	layout := filepath.Join(c.dir, "layout")
	defer os.RemoveAll(layout + ".cache")
	defer os.RemoveAll(layout)
	if name == "kimg" {
		argv := []string{c.kimg, "convert", "--no-sync"}
		for i := range c.images {
			argv = append(argv, "dir:"+c.image(i), fmt.Sprintf("oci:%s:i%d", layout, i))
		}
		u, err := c.timed(c.tmp(), argv...)
		if err != nil {
			return u, err
		}
		return u, c.complete(layout)
	}
	argv := []string{"sh", "-c", skopeos}
	if testenv.IsRoot() {
		argv = append([]string{"unshare", "--mount"}, argv...)
	}
	env := []string{"NEW=" + layout, "IMAGES=" + filepath.Join(c.dir, "images"), "XDG_DATA_HOME=" + layout + ".cache", "COLD="}
	if name != "skopeo" {
		env[3] = "COLD=1"
	}
	u, err := c.timed(env, argv...)
	if err != nil {
		return u, err
	}
	return u, c.complete(layout)
}

// complete fails when a layout does not have the blobs that every conversion leaves: a configuration and a manifest for
// each image, its own layer, and the shared ones. Skopeo also copies the empty blob.
func (c conversions) complete(layout string) error {
	blobs, err := os.ReadDir(filepath.Join(layout, "blobs", "sha256"))
	if want := 3*c.images + c.base; err == nil && len(blobs) != want && len(blobs) != want+1 {
		return fmt.Errorf("%d blobs in the layout, wanted %d", len(blobs), want)
	}
	return err
}
