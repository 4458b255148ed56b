package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// usage is what one run took.
type usage struct {
	wall    time.Duration
	cpu     time.Duration // user and system, of all processes
	peak    int64         // KiB, of the largest process
	written int64         // bytes dirtied on disks by all processes
	size    int64         // bytes of what was written outside the store
	beside  time.Duration // median time of a listing while it ran
	again   *usage        // of the same once more, where that is measured
}

// timed runs a command to its end, or ends it and all that it started with the context.
func timed(ctx context.Context, env []string, argv ...string) (usage, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	err := cmd.Run()
	u := usage{wall: time.Since(start)}
	if ctx.Err() != nil {
		if cmd.Process != nil {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // whoever did not heed it
		}
		return u, context.Cause(ctx)
	}
	if err != nil {
		return u, fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, &stderr)
	}
	r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return u, errors.New("no resource usage on this system")
	}
	u.peak, u.written = r.Maxrss, r.Oublock*512
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return u, nil
}

func output(argv ...string) (string, error) {
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	return strings.TrimSpace(string(out)), err
}

// sizeOf adds up the files below a path.
func sizeOf(path string) (n int64, err error) {
	err = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}

// sorted are the values of all runs, least first.
func sorted[T int64 | time.Duration](runs []usage, of func(usage) T) []T {
	all := make([]T, len(runs))
	for i, u := range runs {
		all[i] = of(u)
	}
	slices.Sort(all)
	return all
}

// middle is the median of sorted values; 0 when there are none.
func middle[T int64 | time.Duration](all []T) T {
	if len(all) == 0 {
		return 0
	}
	return (all[len(all)/2] + all[(len(all)-1)/2]) / 2
}

func wall(runs []usage) []time.Duration {
	return sorted(runs, func(u usage) time.Duration { return u.wall })
}
func cpu(runs []usage) []time.Duration {
	return sorted(runs, func(u usage) time.Duration { return u.cpu })
}

func peak(runs []usage) (most int64) {
	for _, u := range runs {
		most = max(most, u.peak)
	}
	return most
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func ratio(a, b time.Duration) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}
