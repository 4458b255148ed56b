//go:build linux

package userns

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func script(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestSubordinateRanges(t *testing.T) {
	const file = `# a comment
alice:100000:65536
bob:200000:65536
1000:300000:1000
alice:400000:0
alice:x:1
alice:5:
alice:-5:10
  alice:500000:10
alice:4294967290:100
alicette:600000:10
:700000:10
alice:100000:65536:more
`
	for _, c := range []struct {
		login string
		uid   int
		want  []extent
	}{
		{"alice", 1000, []extent{{0, 100000, 65536}, {0, 300000, 1000}, {0, 500000, 10}}},
		{"alice", 1, []extent{{0, 100000, 65536}, {0, 500000, 10}}},
		{"", 1000, []extent{{0, 300000, 1000}}},
		{"nobody", 5, nil},
	} {
		got, err := parseSubordinate(strings.NewReader(file), c.login, c.uid)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s, %d: %v %v, want %v", c.login, c.uid, got, err, c.want)
		}
	}
	if got, err := subordinate("/no/such/file", "alice", 1000); got != nil || err != nil {
		t.Error(got, err)
	}
}

func TestLayOut(t *testing.T) {
	for name, c := range map[string]struct {
		own    int
		ranges []extent
		want   []extent
	}{
		"none":              {1000, nil, []extent{{0, 1000, 1}}},
		"one after another": {1000, []extent{{0, 5000, 10}, {0, 2000, 5}}, []extent{{0, 1000, 1}, {1, 5000, 10}, {11, 2000, 5}}},
		"twice the same":    {1000, []extent{{0, 5000, 10}, {0, 5000, 10}}, []extent{{0, 1000, 1}, {1, 5000, 10}}},
		"overlap":           {1000, []extent{{0, 5000, 10}, {0, 5009, 10}, {0, 5010, 1}}, []extent{{0, 1000, 1}, {1, 5000, 10}, {11, 5010, 1}}},
		"the user's own":    {1000, []extent{{0, 900, 200}}, []extent{{0, 1000, 1}}},
		"too many ids":      {1000, []extent{{0, 5000, math.MaxUint32 - 6000}, {0, 1, 900}}, []extent{{0, 1000, 1}, {1, 5000, math.MaxUint32 - 6000}, {math.MaxUint32 - 5999, 1, 900}}},
	} {
		if got := layOut(c.own, c.ranges); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	var many []extent
	for i := range 1000 {
		many = append(many, extent{0, uint32(10000 + 2*i), 1})
	}
	if got := layOut(1000, many); len(got) != maxExtents {
		t.Errorf("%d lines, the kernel takes %d", len(got), maxExtents)
	}
}

const mountinfo = `22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 8:1 /home/u/store/overlay /home/u/store/overlay rw,relatime - ext4 /dev/sda1 rw
31 22 8:1 /elsewhere /home/u/store/bound rw,relatime - ext4 /dev/sda1 rw
32 30 0:45 / /home/u/store/overlay/x/merged rw shared:9 - overlay overlay rw,lowerdir=a
33 22 0:46 / /media/usb rw master:7 - vfat /dev/sdb rw
34 22 0:47 / /with\040space rw shared:1 master:2 propagate_from:3 - tmpfs tmpfs rw
garbage
35 x 0:47 / /y rw - tmpfs tmpfs rw
36 22 0:47 / /y rw
`

func TestMadeMounts(t *testing.T) {
	all, err := parseMounts(strings.NewReader(mountinfo))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 6 || all[5].point != `/with\040space` || !all[5].slave || all[3].slave || all[3].fstype != "overlay" {
		t.Errorf("%+v", all)
	}
	points := func(list []mount) (out []string) {
		for _, m := range list {
			out = append(out, m.point)
		}
		return out
	}
	before := map[string]bool{all[0].key(): true}
	want := []string{"/home/u/store/bound", "/home/u/store/overlay/x/merged"}
	if got := points(made(all, before)); !cmp.Equal(got, want) {
		t.Errorf("made: %v, want %v", got, want)
	}
	// An id that is used again for something else is not the mount that was there before.
	reused := all[3]
	reused.dev = "0:44"
	before[reused.key()] = true
	if got := points(made(all, before)); !cmp.Equal(got, want) {
		t.Errorf("made: %v, want %v", got, want)
	}
	forgetGone(before, all)
	if len(before) != 1 {
		t.Errorf("not forgotten: %v", before)
	}
}

func TestProcesses(t *testing.T) {
	pid := os.Getpid()
	start, err := startTime(pid)
	if err != nil || start == 0 {
		t.Fatal(start, err)
	}
	p := process{pid, start}
	if got, err := parseProcess(p.String()); got != p || err != nil {
		t.Error(got, err)
	}
	if !ownedBy(pid, os.Getuid()) || ownedBy(pid, os.Getuid()+1) || ownedBy(4000000, 0) {
		t.Error("the owner of this process is not known")
	}
	if p.valid(os.Getuid()) == nil {
		t.Error("a process of our own namespace could hold another one")
	}
	for _, text := range []string{"", ":", "1:1", "0:1", "-5:1", "5", "5:", ":5", "5:x", "5:1:1", "99999999999999999999:1"} {
		if p, err := parseProcess(text); err == nil {
			t.Errorf("%q: %v", text, p)
		}
	}
}

func FuzzRecords(f *testing.F) {
	f.Add("5:6\n22 8:1 / / ext4\n")
	f.Add(mountinfo)
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := parseKeeper(text); err == nil {
			again, err := parseKeeper(k.record())
			if err != nil || again.process != k.process || !cmp.Equal(again.before, k.before) {
				t.Errorf("%q became %+v, then %+v, %v", text, k, again, err)
			}
		}
		if list, err := parseMounts(strings.NewReader(text)); err == nil {
			made(list, nil)
		}
		_, _ = parseStage(text)
	})
}
