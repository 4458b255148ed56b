// Command bench holds kimg against the bars of its table (rows.go): kimg commit against the floor (tar, hash and untar in a
// pipe) and against the buildahs of the machine, load, save, push and pull against skopeo, podman and buildah, and with -convert
// kimg convert against skopeo. Runs alternate, every commit has content of its own and every load a store, medians are compared. It prints
// one table, met or missed, and with -doc writes docs/performance.md and its chart from the same numbers. A missed bar is no
// failure of the program.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/tests/lab"
)

func main() {
	lab.Main()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	context.AfterFunc(ctx, stop) // a second one ends it at once
	var b bench
	flag.StringVar(&b.kimg, "kimg", "bin/kimg", "the binary to measure")
	flag.StringVar(&b.memory, "memory", "/dev/shm", "a tmpfs with 12 GiB, for what is compared with --no-sync; empty: not measured")
	flag.StringVar(&b.disk, "disk", os.TempDir(), "a disk with 50 GiB, for what is compared as users run it; empty: not measured")
	flag.StringVar(&b.buildah, "buildah", os.Getenv("KIMG_BENCH_BUILDAH"), "more `programs` to compare with, separated by commas (default $KIMG_BENCH_BUILDAH); buildah and buildah-* of PATH are found; none: no buildah at all")
	flag.IntVar(&b.rounds, "rounds", 0, "rounds per row; 0: each row's own number, fewer of what takes long")
	flag.BoolVar(&b.all, "all", false, "also what no bar speaks of")
	flag.StringVar(&b.doc, "doc", "", "write performance.md and performance.svg into this `directory`")
	only := flag.String("only", "", "only rows whose name contains one of these `words`, separated by |")
	list := flag.Bool("list", false, "list the rows, measure nothing")
	conversions := flag.Bool("convert", false, "measure conversions instead of commits, in -memory")
	cold := flag.Int("cold", 1, "rounds of conversions without skopeo's cache, which take minutes")
	flag.Parse()
	err := error(nil)
	switch {
	case *conversions:
		err = b.convert(ctx, b.memory, cmp.Or(b.rounds, 5), *cold)
	case *list:
		for _, r := range table(nil) {
			fmt.Println(r.name)
		}
	default:
		err = b.run(ctx, strings.Split(*only, "|"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	kimg, memory, disk string
	buildah, doc       string
	rounds             int
	all                bool
	shared             string // below it is what several rows need and none changes: trees, layouts, archives
}

// run measures the rows and reports.
func (b *bench) run(ctx context.Context, words []string) (err error) {
	if b.doc != "" {
		if err := errors.Join(os.MkdirAll(b.doc, 0o755), unix.Access(b.doc, unix.W_OK)); err != nil {
			return fmt.Errorf("%s: %w", b.doc, err)
		}
	}
	if b.kimg, err = filepath.Abs(b.kimg); err != nil {
		return err
	}
	peers, err := findPeers(b.buildah)
	if err != nil {
		return err
	}
	start := time.Now()
	rep := &report{out: os.Stdout}
	grounds := map[bool]*ground{} // on a disk or not
	defer func() {
		rep.remove()
		for _, g := range grounds {
			err = errors.Join(err, g.remove())
		}
	}()
	for _, disk := range []bool{false, true} {
		if err := b.ground(grounds, disk); err != nil {
			return err
		}
	}
	fmt.Fprintf(rep.out, lineFormat, "work", "measured", "of", "value", "bar", "")
	for _, r := range table(peers) {
		if !b.all {
			r.contenders = slices.DeleteFunc(slices.Clone(r.contenders), func(c contender) bool { return !r.judged(c) })
		}
		g, ok := grounds[r.disk]
		if !ok || len(r.contenders) == 0 || !anyIn(r.name, words) {
			continue
		}
		res, err := b.duel(ctx, rep, g, r)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		rep.add(res)
	}
	rep.peak()
	rep.details()
	fmt.Fprintf(rep.out, "\n%d of %d bars met, %s\n", rep.met, rep.met+rep.missed, time.Since(start).Round(time.Second))
	if b.doc == "" {
		return nil
	}
	return rep.write(b.doc, machine(*b, peers))
}

// ground adds where rows are measured, in memory or on a disk, if that is a place of this machine.
func (b *bench) ground(grounds map[bool]*ground, disk bool) error {
	dir := b.memory
	if disk {
		dir = b.disk
	}
	if dir == "" {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if (fs.Type == unix.TMPFS_MAGIC) == disk {
		return nil
	}
	g, err := newGround(dir)
	if err != nil {
		return err
	}
	grounds[disk] = g
	b.shared = cmp.Or(b.shared, filepath.Join(g.dir, "shared"))
	return os.MkdirAll(b.shared, 0o755)
}

// A run of long needs no other one before it to warm up, and what took enough in all is measured once more only when -rounds
// says so.
const long, enough = 3 * time.Second, 10 * time.Second

// duel measures all contenders of a row in alternating order. In memory the first round warms up and does not count.
func (b *bench) duel(ctx context.Context, rep *report, g *ground, r row) (*result, error) {
	s, err := newSite(ctx, b.kimg, b.shared, g, r)
	if err != nil {
		return nil, err
	}
	if r.disk { // deleting slows down what comes after it, for minutes on ext4: at the very end, then
		rep.sites = append(rep.sites, s)
	} else {
		defer s.remove()
	}
	if err := s.prepare(r); err != nil {
		return nil, err
	}
	res := &result{row: r, runs: map[string][]usage{}}
	rounds, warm := cmp.Or(b.rounds, r.rounds), 1
	if r.disk || rounds == 1 {
		warm = 0
	}
	for i := range rounds + warm {
		for j := range r.contenders {
			c := r.contenders[j]
			if i%2 == 1 {
				c = r.contenders[len(r.contenders)-1-j]
			}
			most := min(rounds, cmp.Or(c.most, rounds))
			if !r.judged(c) {
				most = min(most, 2)
			}
			if done := res.runs[c.name]; c.do == nil || len(done) == most || b.rounds == 0 && total(done) > enough {
				continue
			}
			u, err := c.do(s, fmt.Sprintf("r%d-%d", i, j))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if i >= warm || u.wall > long {
				res.runs[c.name] = append(res.runs[c.name], u)
				if u.again != nil {
					res.runs[c.name+again] = append(res.runs[c.name+again], *u.again)
				}
			}
			if err := s.forget(); err != nil {
				return nil, err
			}
		}
	}
	return res, nil
}

// total is the time that runs took together.
func total(runs []usage) (all time.Duration) {
	for _, u := range runs {
		all += u.wall
	}
	return all
}

func anyIn(s string, words []string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}
