package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// lineFormat is one line of the table: work, who and what, measured values, ratio, bar, verdict.
const lineFormat = "%-57s %-46s %-20s %8s %8s  %s\n"

// result is what a row's contenders took.
type result struct {
	row  row
	runs map[string][]usage
}

// line is one comparison, in words.
type line struct{ work, who, values, got, bar, verdict string }

// report collects results and says which bars were met.
type report struct {
	out         io.Writer
	results     []*result
	lines       []line
	met, missed int
	sites       []*site // removed at the end
}

func (rep *report) remove() {
	for _, s := range rep.sites {
		s.remove()
	}
}

// add prints the lines of a result.
func (rep *report) add(res *result) {
	rep.results = append(rep.results, res)
	for _, b := range res.row.bars {
		if len(res.runs[b.who]) == 0 {
			continue
		}
		ours := b.measure.of(res.runs[b.who])
		if b.against == "" {
			rep.line(res.row.name, b, b.who+": "+b.measure.name, "", ours, b.measure.unit)
			continue
		}
		for _, c := range res.row.contenders {
			if theirs := b.measure.of(res.runs[c.name]); strings.HasPrefix(c.name, b.against) && theirs > 0 && c.name != b.who {
				values := fmt.Sprintf("%s of %s %s", number(ours), number(theirs), b.measure.unit)
				rep.line(res.row.name, b, b.who+" / "+c.name+": "+b.measure.name, values, ours/theirs, "")
			}
		}
	}
}

// line judges one comparison.
func (rep *report) line(work string, b bar, who, values string, got float64, unit string) {
	l := line{work: work, who: who, values: values, got: strings.TrimSpace(number(got) + " " + unit)}
	if b.limit > 0 {
		l.bar, l.verdict = strings.TrimSpace(number(b.limit)+" "+unit), "met"
		switch {
		case got > b.limit:
			l.verdict = "MISSED"
			rep.missed++
		case b.ambition > 0 && got <= b.ambition:
			l.verdict = "met, ambition too"
			fallthrough
		default:
			rep.met++
		}
	}
	rep.lines = append(rep.lines, l)
	fmt.Fprintf(rep.out, lineFormat, l.work, l.who, l.values, l.got, l.bar, l.verdict)
}

// peak is the memory of the largest run of kimg's, of all rows.
func (rep *report) peak() {
	var all []usage
	for _, res := range rep.results {
		for name, runs := range res.runs {
			if strings.HasPrefix(name, "kimg") {
				all = append(all, runs...)
			}
		}
	}
	if len(all) > 0 {
		rep.line("all of the above", bar{limit: 100, ambition: 64}, "kimg: "+peakSize.name, "", peakSize.of(all), peakSize.unit)
	}
}

// details prints what every contender took.
func (rep *report) details() {
	fmt.Fprintln(rep.out)
	rep.eachRun(func(cells ...string) {
		for i, width := range []int{57, 16, 3, 10, 10, 10, 10, 9, 11, 9} {
			fmt.Fprintf(rep.out, "%-*s ", width, cells[i])
		}
		fmt.Fprintln(rep.out)
	})
}

// eachRun passes the cells of a table with one line for each contender of each row.
func (rep *report) eachRun(put func(cells ...string)) {
	put("work", "who", "n", "median", "least", "most", "CPU", "peak MiB", "written MB", "size MB")
	for _, res := range rep.results {
		for _, c := range res.row.contenders {
			runs := res.runs[c.name]
			if len(runs) == 0 {
				continue
			}
			all, written := wall(runs), ""
			if res.row.disk {
				written = number(bytesOut.of(runs))
			}
			put(res.row.name, c.name, fmt.Sprint(len(runs)), duration(middle(all)), duration(all[0]), duration(all[len(all)-1]), duration(middle(cpu(runs))),
				number(peakSize.of(runs)), written, strings.TrimPrefix(number(size.of(runs)), "0.000"))
		}
	}
}

// number has three digits that count.
func number(f float64) string {
	switch {
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	case f >= 0.1:
		return fmt.Sprintf("%.2f", f)
	}
	return fmt.Sprintf("%.3f", f)
}

func duration(d time.Duration) string {
	if d >= time.Second {
		return number(d.Seconds()) + " s"
	}
	return number(milli(d)) + " ms"
}

// page is docs/performance.md around its tables.
const page = `# How fast kimg is

This page and its chart are written by ` + "`make bench-compare BENCH='-all -doc docs'`" + `; nothing here is copied by hand.

%s
How it is measured: every row has a private store and a base image; every run has a container of its own with new content from a
seed, because a layer that the store holds already would be found and not written. The contenders of a row take turns, in
the other order every second round, fewer rounds of what takes many seconds (n); what is compared is the ratio of their medians. What several
rows start from, trees, layouts and archives, is made once and lies in memory. *memory* is tmpfs and ` + "`--no-sync`" + `; *disk* is
kimg as users run it, which waits for the disk, against the floor with ` + "`sync -f`" + ` (buildah does not wait).

- **floor**: ` + "`tar -C UPPER --xattrs -cf - . | tee >(openssl dgst -sha256) | tar --xattrs -xf - -C NEW`" + `, the hash waited for: each byte read, hashed
  and written once by tools every machine has. **read + hash** is the same without writing.
- **buildah**: ` + "`buildah commit -q`" + `, to oci: with gzip ` + "`--disable-compression=false`" + `. Its commit knows no zstd; kimg's is held against its gzip.
- **load** is into an empty store, of a layout with gzip layers against ` + "`skopeo copy`" + `, of an archive against ` + "`podman load`" + `; *listed* is one during which
  ` + "`kimg images`" + ` runs on the store in a process of its own, again and again.
- **push** is to a registry of the run's own on the loopback interface, empty but for *again*, which is the second push to it; against
  ` + "`buildah push --compression-format`" + `. **pull** is from such a registry into an empty store, against ` + "`skopeo copy`" + `.
- **bytes written** are those dirtied by all processes, temporary files included.

![wall time of each contender](performance.svg)

## The bars

%s
## Every run

%s`

// write makes the page and the chart.
func (rep *report) write(dir, machine string) error {
	var bars, runs bytes.Buffer
	bars.WriteString("| work | measured | values | result | bar | |\n|---|---|---|---|---|---|\n")
	for _, l := range rep.lines {
		fmt.Fprintf(&bars, "| %s |\n", strings.Join([]string{l.work, l.who, l.values, l.got, l.bar, strings.Replace(l.verdict, "MISSED", "**missed**", 1)}, " | "))
	}
	rep.eachRun(func(cells ...string) {
		fmt.Fprintf(&runs, "| %s |\n", strings.Join(cells, " | "))
		if cells[0] == "work" {
			runs.WriteString(strings.Repeat("|---", len(cells)) + "|\n")
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "performance.md"), fmt.Appendf(nil, page, machine, &bars, &runs), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "performance.svg"), chart(rep.results), 0o644)
}
