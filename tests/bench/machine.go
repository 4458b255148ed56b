package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine describes what was measured on, and with what.
func machine(b bench, peers []peer) string {
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	hash := "without SHA extensions"
	if strings.Contains(field("/proc/cpuinfo", "flags", "Features"), " sha") {
		hash = "with SHA extensions"
	}
	ours, _ := output(b.kimg, "version")
	ours, _, _ = strings.Cut(ours, "\n")
	var others []string
	for _, p := range peers {
		others = append(others, p.name)
	}
	kernel, _, _ := strings.Cut(unix.ByteSliceToString(uts.Release[:]), "-")
	var total int64 // KiB
	_, _ = fmt.Sscan(field("/proc/meminfo", "MemTotal"), &total)
	var disk unix.Statfs_t
	_ = unix.Statfs(b.disk, &disk)
	fs := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs"}[int64(disk.Type)]
	return fmt.Sprintf("Measured on %s: %d processors (%s, %s %s), %d GiB of memory, Linux %s, %s, disk %s, user %d; %s, %s; %s.\n",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), strings.TrimSpace(field("/proc/cpuinfo", "model name")), runtime.GOARCH, hash,
		(total+1<<19)>>20, kernel,
		strings.Trim(field("/etc/os-release", "PRETTY_NAME"), `" `), strings.TrimSpace(fs), os.Getuid(), ours, strings.Join(others, ", "), runtime.Version())
}

// field is the rest of the first line that begins with one of the names; empty: there is none.
func field(file string, names ...string) string {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		for _, name := range names {
			if rest, ok := strings.CutPrefix(line, name); ok {
				return strings.TrimLeft(strings.TrimRight(rest, "\n"), "\t :=")
			}
		}
	}
	return ""
}
