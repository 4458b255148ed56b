// Command bench compares kimg commit with the floor (tar, hash and untar in a pipe) and with the machine's buildah, and with
// -convert kimg convert with the machine's skopeo: paired runs in alternating order, fresh content in every run, medians.
// It prints numbers and judges nothing; a number over its bar is marked.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/tests/lab"
)

// workload is what the container of a run holds, and the ratios the commit is held to.
type workload struct {
	name, change string
	rounds       int
	ofFloor      float64 // 0: the floor is not a measure here
	ofBuildah    float64
}

var workloads = []workload{
	{"1 GiB in 8 files", "gigabyte", 3, 1.0, 0.15},
	{"20,000 files of 1-8 KiB", "small", 5, 2.2, 0.40},
	{"10 files", "tiny", 11, 0, 0.6},
}

func main() {
	lab.Main()
	var b bench
	flag.StringVar(&b.kimg, "kimg", "bin/kimg", "the binary to measure")
	flag.StringVar(&b.memory, "memory", "/dev/shm", "a tmpfs: kimg --no-sync against the floor; empty: not measured")
	flag.StringVar(&b.disk, "disk", os.TempDir(), "a disk: kimg as users run it against floor + sync -f; empty: not measured")
	flag.BoolVar(&b.buildah, "buildah", true, "measure the machine's buildah too")
	flag.IntVar(&b.rounds, "rounds", 0, "rounds per workload; 0: each workload's own number")
	only := flag.String("only", "", "only workloads whose name contains this")
	conversions := flag.Bool("convert", false, "measure conversions instead of commits, in -memory")
	cold := flag.Int("cold", 1, "rounds of conversions without skopeo's cache, which take minutes")
	flag.Parse()
	err := error(nil)
	if *conversions {
		err = b.convert(b.memory, cmp.Or(b.rounds, 5), *cold)
	} else {
		err = b.run(*only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	kimg, memory, disk string
	buildah            bool
	rounds             int
}

func (b bench) run(only string) error {
	var err error
	if b.kimg, err = filepath.Abs(b.kimg); err != nil {
		return err
	}
	out := tabwriter.NewWriter(os.Stdout, 2, 8, 2, ' ', 0)
	defer out.Flush()
	fmt.Fprintln(out, "where\tworkload\trun\tmedian\tmin\tmax\tof floor\tof buildah\tpeak MiB\twritten MB")
	for _, place := range []struct {
		name, dir string
		sync      bool
	}{{"memory", b.memory, false}, {"disk", b.disk, true}} {
		if place.dir == "" {
			continue
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(place.dir, &fs); err != nil {
			return fmt.Errorf("%s: %w", place.dir, err)
		}
		if (fs.Type == unix.TMPFS_MAGIC) == place.sync {
			fmt.Fprintf(os.Stderr, "bench: %s is no %s: not measured\n", place.dir, place.name)
			continue
		}
		for _, w := range workloads {
			if !strings.Contains(w.name, only) {
				continue
			}
			if err := b.compare(out, place.name, place.dir, place.sync, w); err != nil {
				return fmt.Errorf("%s, %s: %w", place.name, w.name, err)
			}
			out.Flush()
		}
	}
	return b.startup(out)
}

// compare measures one workload in one place.
func (b bench) compare(out *tabwriter.Writer, place, dir string, sync bool, w workload) error {
	dir, err := os.MkdirTemp(dir, "kimg-bench-")
	if err != nil {
		return err
	}
	s := site{kimg: b.kimg, dir: dir, sync: sync}
	defer s.remove()
	if err := s.base(); err != nil {
		return err
	}
	names := []string{"kimg", "floor", "buildah"}
	if !b.buildah {
		names = names[:2]
	}
	rounds := w.rounds
	if b.rounds > 0 {
		rounds = b.rounds
	}
	runs := map[string][]usage{}
	for i := range rounds + 1 { // the first round warms up and does not count
		order := slices.Clone(names)
		if i%2 == 1 {
			slices.Reverse(order)
		}
		for _, name := range order {
			u, err := s.measure(name, w.change, strconv.Itoa(i))
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if i > 0 {
				runs[name] = append(runs[name], u)
			}
		}
		if !sync { // memory is scarce and a delete there costs later runs nothing
			if err := s.forget(); err != nil {
				return err
			}
		}
	}
	floor, buildah := median(runs["floor"]), median(runs["buildah"])
	for _, name := range names {
		m, all := median(runs[name]), wall(runs[name])
		ofFloor, ofBuildah := ratio(m, floor), ratio(m, buildah)
		mark := func(r, bar float64) string {
			if name == "kimg" && bar > 0 && r > bar {
				return fmt.Sprintf("%.2f > %.2f", r, bar)
			}
			return fmt.Sprintf("%.2f", r)
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", place, w.name, s.label(name), ms(m), ms(all[0]), ms(all[len(all)-1]),
			mark(ofFloor, w.ofFloor), mark(ofBuildah, w.ofBuildah), peak(runs[name])>>10, written(runs[name])/1000000)
	}
	return nil
}

// startup measures what every call costs, and the listing of many images.
func (b bench) startup(out *tabwriter.Writer) error {
	dir, err := os.MkdirTemp(b.memory, "kimg-bench-") // on a disk, a thousand records take a minute to make
	if err != nil {
		return err
	}
	s := site{kimg: b.kimg, dir: dir}
	defer s.remove()
	if err := s.base(); err != nil {
		return err
	}
	if err := s.helper("many", s.root(), s.runroot(), "999"); err != nil {
		return err
	}
	for _, c := range []struct {
		name string
		bar  time.Duration
		args []string
	}{{"version", 15 * time.Millisecond, []string{b.kimg, "version"}}, {"images, 1,000 of them", 60 * time.Millisecond, s.command("images")}} {
		var runs []usage
		for range 21 {
			u, err := timed(nil, c.args...)
			if err != nil {
				return err
			}
			runs = append(runs, u)
		}
		m, all, note := median(runs), wall(runs), ""
		if m > c.bar {
			note = fmt.Sprintf("over %v", c.bar)
		}
		fmt.Fprintf(out, "start\t%s\tkimg\t%s\t%s\t%s\t%s\t\t%d\t\n", c.name, ms(m), ms(all[0]), ms(all[len(all)-1]), note, peak(runs)>>10)
	}
	return nil
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func ratio(a, b time.Duration) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}
