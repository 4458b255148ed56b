package main

import (
	"runtime"
	"slices"
	"strings"
	"time"
)

// row is one kind of work, where it is done, who does it and what is asked of kimg.
type row struct {
	name       string
	disk       bool // on a disk, as users run it; else in memory, where nobody waits for a disk
	driver     string
	options    []string
	base       string // what the image below has, of the lab's changes
	change     string // what the container has
	images     int    // how many images the store has beside
	layers     string // of an image that comes into stores: how many, of how many files each, of how many bytes each
	image      bool   // an image of base and change is made
	archive    bool   // and an archive of it
	big        bool   // on a disk only: 7 GiB and minutes for what the others show in memory
	rounds     int
	contenders []contender
	bars       []bar
}

// bar is what one contender is held to, in one measure: a ratio, or without against a number.
type bar struct {
	who, against string // against is the beginning of names: one bar for each buildah
	measure      measure
	limit        float64 // 0: only listed
	ambition     float64 // 0: none
}

// measure is what is compared; name says it in the table.
type measure struct {
	name, unit string
	of         func([]usage) float64
}

var (
	wallTime = measure{"wall", "ms", func(u []usage) float64 { return milli(middle(wall(u))) }}
	bytesOut = measure{"bytes written", "MB", func(u []usage) float64 {
		return float64(middle(sorted(u, func(u usage) int64 { return u.written }))) / 1e6
	}}
	size = measure{"size of the result", "MB", func(u []usage) float64 {
		return float64(middle(sorted(u, func(u usage) int64 { return u.size }))) / 1e6
	}}
	peakSize = measure{"peak memory", "MiB", func(u []usage) float64 { return float64(peak(u)) / 1024 }}
	// spread is how much longer it takes than all its work would take spread evenly over the processors.
	spread = measure{"wall of CPU time / processors", "", func(u []usage) float64 {
		return ratio(middle(wall(u)), middle(cpu(u))/time.Duration(runtime.NumCPU()))
	}}
	meanwhile = measure{"kimg images meanwhile", "ms", func(u []usage) float64 {
		return milli(middle(sorted(u, func(u usage) time.Duration { return u.beside })))
	}}
)

// judged tells whether a bar speaks of a contender; the others are shown only.
func (r row) judged(c contender) bool {
	return slices.ContainsFunc(r.bars, func(b bar) bool {
		return b.limit > 0 && (b.who == c.name || b.who == c.name+again || b.against != "" && strings.HasPrefix(c.name, b.against))
	})
}

func milli(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// table are the rows, in the order of the report; peers may be nil.
func table(peers []peer) []row {
	with := func(of []contender, transport string, flags ...string) []contender {
		for _, p := range peers {
			of = append(of, p.commit(transport, flags...))
		}
		return of
	}
	floor, hash := pipe("floor", floorScript), pipe("read + hash", hashScript)
	copied, linked := commit("kimg"), commit("kimg --rm", "--rm")
	rows := []row{
		{name: "commit, 1 GiB in 8 files, memory", change: "gigabyte", rounds: 3, contenders: with([]contender{copied, floor, hash, linked}, ""), bars: []bar{
			{"kimg", "floor", wallTime, 0.75, 0}, {"kimg", "read + hash", wallTime, 0, 0}, {"kimg --rm", "read + hash", wallTime, 0.85, 0}, {"kimg", "buildah", wallTime, 0, 0}}},
		{name: "commit, 1 GiB in 8 files, disk", disk: true, change: "gigabyte", rounds: 3, contenders: with([]contender{copied, floor, linked}, ""), bars: []bar{
			{"kimg", "floor", wallTime, 1, 0}, {"kimg", "floor", bytesOut, 1.05, 1.02}, {"kimg --rm", "floor", bytesOut, 0.01, 0}, {"kimg", "buildah", wallTime, 0, 0}}},
		{name: "commit, 20,000 small files, memory", change: "small", rounds: 5, contenders: with([]contender{copied, floor, linked}, ""), bars: []bar{
			{"kimg", "floor", wallTime, 1.5, 1}, {"kimg --rm", "kimg", wallTime, 0.8, 0}, {"kimg", "buildah", wallTime, 0, 0}}},
		{name: "commit, 20,000 small files, disk", disk: true, change: "small", rounds: 5, contenders: with([]contender{copied, floor, linked}, ""), bars: []bar{
			{"kimg", "floor", wallTime, 1.5, 1}, {"kimg", "floor", bytesOut, 1.25, 1.02}, {"kimg --rm", "kimg", wallTime, 0.8, 0}, {"kimg", "buildah", wallTime, 0, 0}}},
		{name: "commit, installed packages, memory", base: "system", change: "packages", rounds: 4, contenders: with([]contender{copied, floor}, ""), bars: []bar{
			{"kimg", "floor", wallTime, 1.1, 0.8}, {"kimg", "buildah", wallTime, 0, 0}}},
		{name: "commit, installed packages, disk", disk: true, base: "system", change: "packages", rounds: 3, contenders: with([]contender{copied, floor}, ""), bars: []bar{
			{"kimg", "floor", wallTime, 1.1, 0.8}, {"kimg", "floor", bytesOut, 1.05, 1.02}, {"kimg", "buildah", wallTime, 0, 0}}},
	}
	rows = append(rows, tiny(with)...)
	away := func(name, transport string, limit, ambition float64, ours contender, flags ...string) row {
		return row{name: name, base: "system", change: "packages", rounds: 3, contenders: with([]contender{ours}, transport, flags...),
			bars: []bar{{ours.name, "buildah", wallTime, limit, ambition}, {ours.name, "buildah", size, 0, 0}}}
	}
	gzip := away("commit, to oci: with gzip", "oci", 1, 0, push("kimg gzip", "oci", true, "--compression", "gzip"), "--disable-compression=false")
	gzip.contenders = append(gzip.contenders, push("kimg zstd", "oci", false, "--compression", "zstd"), push("kimg zstd 1", "oci", false, "--compression", "zstd", "--compression-level", "1"), contender{name: "kimg gzip" + again})
	gzip.bars = []bar{{"kimg gzip", "buildah", wallTime, 1, 0}, {"kimg gzip", "buildah", size, 1.005, 0}, {"kimg zstd", "buildah", wallTime, 0.5, 0},
		{"kimg zstd", "buildah", size, 0, 0}, {"kimg zstd 1", "buildah", wallTime, 0, 0}, {"kimg zstd 1", "buildah", size, 0, 0}, {"kimg gzip again", "buildah", wallTime, 0.1, 0}}
	rows = append(rows,
		row{name: "commit, 8 at once, memory", change: "eighth", rounds: 4, contenders: []contender{many("kimg", 8)}, bars: []bar{
			{"kimg", "", spread, 1.15, 0}, {"kimg", "", meanwhile, 30, 10}}},
		away("commit, to oci:", "oci", 0.6, 0.4, push("kimg", "oci", false)),
		away("commit, to docker-archive:", "docker-archive", 0.6, 0.4, push("kimg", "docker-archive", false)),
		gzip,
		row{name: "commit, 200,000 small files, memory", change: "crowd", rounds: 1, contenders: []contender{copied, push("kimg gzip", "oci", false, "--compression", "gzip")}, bars: []bar{
			{"kimg", "", peakSize, 100, 64}, {"kimg gzip", "", peakSize, 100, 64}}},
		row{name: "start, 1 image", rounds: 15, contenders: starts(), bars: []bar{
			{"version", "", wallTime, 6, 0}, {"images", "", wallTime, 6, 0}, {"inspect", "", wallTime, 8, 0}, {"mount", "", wallTime, 8, 0}, {"from", "", wallTime, 10, 0}}},
		row{name: "start, 1,000 images", images: 999, rounds: 15, contenders: starts(), bars: []bar{
			{"images", "", wallTime, 40, 0}, {"inspect", "", wallTime, 0, 0}, {"mount", "", wallTime, 0, 0}, {"from", "", wallTime, 0, 0}}})
	for _, disk := range []bool{false, true} {
		rows = append(rows, whole(disk)...)
	}
	return append(rows, registry(peers)...)
}

// whole are rows of whole images that come into empty stores, or leave one.
func whole(disk bool) (rows []row) {
	where := ", memory"
	if disk {
		where = ", disk"
	}
	for _, r := range []row{
		{name: "load, 60 layers", layers: "60 100 88000", bars: []bar{{"kimg", "skopeo", wallTime, 0.35, 0.25}, {"kimg, listed", "", meanwhile, 50, 0}}},
		{name: "load, 20 layers of 5,000 files", layers: "20 5000 4000", bars: []bar{{"kimg", "skopeo", wallTime, 0.35, 0.25}, {"kimg, listed", "", meanwhile, 50, 0}}},
		{name: "load, a layer of 2 GiB", layers: "1 8 268435456", big: true, bars: []bar{{"kimg", "skopeo", wallTime, 0, 0}, {"kimg, listed", "", meanwhile, 50, 0}}},
	} {
		if r.big && !disk {
			continue
		}
		r.contenders = []contender{load("kimg"), copyIn("skopeo"), listed("kimg, listed")}
		if r.rounds = 3; r.big { // no ratio is judged
			r.rounds = 1
		}
		r.bars = append(r.bars, bar{"kimg", "", peakSize, 100, 64})
		if r.disk = disk; disk {
			r.bars = append(r.bars, bar{"kimg", "skopeo", bytesOut, 0, 0})
		}
		r.name += where
		rows = append(rows, r)
	}
	return append(rows,
		row{name: "save, installed packages" + where, disk: disk, base: "system", change: "packages", image: true, rounds: 3,
			contenders: []contender{save("kimg"), save("kimg, docker-archive", "--format", "docker-archive"), podmanSave()},
			bars:       []bar{{"kimg", "podman", wallTime, 0.4, 0}, {"kimg, docker-archive", "podman", wallTime, 0.4, 0}, {"kimg", "podman", size, 0, 0}}},
		row{name: "load, installed packages" + where, disk: disk, base: "system", change: "packages", archive: true, rounds: 3,
			contenders: []contender{load("kimg"), podmanLoad()},
			bars:       []bar{{"kimg", "podman", wallTime, 0.5, 0}, {"kimg", "", peakSize, 100, 64}}})
}

// tiny commits ten files in stores of every kind, on a small image and on a large one.
func tiny(with func([]contender, string, ...string) []contender) (rows []row) {
	for _, kind := range []struct {
		name, driver string
		options      []string
		limit        float64
		rounds       int
	}{
		{"overlay", "", nil, 20, 11},
		{"redirect_dir", "", []string{"overlay.mountopt=redirect_dir=on"}, 20, 11},
		{"metacopy", "", []string{"overlay.mountopt=metacopy=on"}, 20, 11},
		{"redirect_dir, metacopy", "", []string{"overlay.mountopt=redirect_dir=on,metacopy=on"}, 20, 11},
		{"fuse-overlayfs", "", []string{"overlay.mount_program=/usr/bin/fuse-overlayfs"}, 0, 3},
		{"vfs", "vfs", nil, 0, 3},
	} {
		for _, base := range []struct{ name, change string }{{"1 MB", ""}, {"170 MB", "system"}} {
			rows = append(rows, row{name: strings.Join([]string{"commit, 10 files", kind.name, "base of " + base.name}, ", "),
				driver: kind.driver, options: kind.options, base: base.change, change: "tiny", rounds: kind.rounds, contenders: with([]contender{commit("kimg")}, ""),
				bars: []bar{{"kimg", "", wallTime, kind.limit, 15}, {"kimg", "buildah", wallTime, 0, 0}}})
		}
	}
	return append(rows, row{name: "commit, 10 files, overlay, base of 170 MB, disk", disk: true, base: "system", change: "tiny", rounds: 11, contenders: with([]contender{commit("kimg")}, ""),
		bars: []bar{{"kimg", "", wallTime, 20, 15}, {"kimg", "buildah", wallTime, 0, 0}}})
}
