package asroot

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Main is the TestMain of a package whose tests run so: [Enter], the usual umask, [Run], and the end of the program.
func Main(m interface{ Run() int }) {
	Enter()
	syscall.Umask(0o022)
	os.Exit(Run(m))
}

// Run runs the tests with a temporary directory of their own and returns the exit status. They fail when they leave
// something behind: an open file, a goroutine, a file or a mount in that directory or in one that has its name in its own.
func Run(m interface{ Run() int }) int { // a *testing.M
	dir, err := os.MkdirTemp("", "kimg-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // some tests become another user
	}
	if err == nil {
		err = os.Setenv("TMPDIR", dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	before := opened()
	code := m.Run()
	if f := flag.Lookup("test.fuzz"); f != nil && f.Value.String() != "" { // the fuzzer itself leaves things
		os.RemoveAll(dir)
		return code
	}
	var left []string
	for range 1500 { // what was told to end may take a moment, and half a minute on a busy machine
		if left = leaks(dir, before); code != 0 || len(left) == 0 {
			break
		}
		if !slices.ContainsFunc(left, func(l string) bool { return !strings.Contains(l, ": pipe:") && !strings.Contains(l, "/registries.d") }) {
			runtime.GC() // the libraries leave a pipe to it for each tar they unpack, and directories that they list
		}
		time.Sleep(20 * time.Millisecond)
	}
	if code == 0 && len(left) > 0 {
		fmt.Fprintf(os.Stderr, "the tests left behind:\n%s\n", strings.Join(left, "\n"))
		code = 1
	}
	os.RemoveAll(dir)
	return code
}

func leaks(dir string, before map[string]int) (left []string) {
	for name, n := range opened() {
		if n > before[name] {
			left = append(left, fmt.Sprintf("open %d times: %s", n-before[name], name))
		}
	}
	if n := runtime.NumGoroutine(); n > 1 {
		buf := make([]byte, 1<<20)
		left = append(left, fmt.Sprintf("%d goroutines:\n%s", n, buf[:runtime.Stack(buf, true)]))
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		left = append(left, err.Error())
	}
	for _, e := range entries {
		left = append(left, filepath.Join(dir, e.Name()))
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		left = append(left, err.Error())
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, filepath.Base(dir)) { // other tests mount at the same time
			left = append(left, "mounted: "+line)
		}
	}
	return left
}

// opened counts the files this process holds open, by name.
func opened() map[string]int {
	all := map[string]int{}
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		if name, err := os.Readlink(fd); err == nil && name != "anon_inode:[eventpoll]" && name != "anon_inode:[eventfd]" { // the runtime's
			all[name]++
		}
	}
	return all
}
