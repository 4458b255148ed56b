//go:build linux

package userns

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containers/storage/pkg/unshare"
	"github.com/containers/storage/types"
	"golang.org/x/sys/unix"
)

func testLogger() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }

// acts are the things a helper program can do once it is in its namespace.
var acts = map[string]func(args []string) error{
	// who: ids, maps, and what containers/storage makes of them.
	"who": func([]string) error {
		uids, err := cat("/proc/self/uid_map")
		if err != nil {
			return err
		}
		gids, err := cat("/proc/self/gid_map")
		fmt.Printf("%d %d\n%s\n%s\n%v %d %d\n", os.Getuid(), os.Getgid(), uids, gids,
			unshare.IsRootless(), unshare.GetRootlessUID(), unshare.GetRootlessGID())
		return err
	},
	// whose: which user's store containers/storage would open.
	"whose": func([]string) error {
		o, err := types.DefaultStoreOptions()
		fmt.Printf("%v %d %d\n%s\n", unshare.IsRootless(), unshare.GetRootlessUID(), unshare.GetRootlessGID(), o.GraphRoot)
		return err
	},
	"environ": func([]string) error {
		fmt.Println(strings.Join(os.Environ(), "\n"))
		return nil
	},
	"exit": func(args []string) error {
		n, err := strconv.Atoi(args[0])
		if err == nil {
			os.Exit(n)
		}
		return err
	},
	"die": func(args []string) error {
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		if err := raise(syscall.Signal(n)); err != nil {
			return err
		}
		time.Sleep(10 * time.Second)
		return errors.New("still alive")
	},
	// stay: prints our pid and lives until standard input ends.
	"stay": func([]string) error {
		fmt.Println(os.Getpid())
		return readUntilClosed()
	},
	"cwd": func(args []string) error {
		dir, err := os.Getwd()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(args[0])
		fmt.Printf("%s %s\n", dir, data)
		return err
	},
	"copy": func([]string) error {
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	},
	// readfd prints what an inherited descriptor gives.
	"readfd": func(args []string) error {
		data, err := os.ReadFile("/dev/fd/" + args[0])
		fmt.Printf("%s\n", data)
		return err
	},
	"args": func(args []string) error {
		fmt.Printf("%q\n", os.Args)
		return nil
	},
	"fds": func([]string) error {
		entries, err := os.ReadDir("/proc/self/fd")
		for _, e := range entries {
			to, _ := os.Readlink("/proc/self/fd/" + e.Name())
			fmt.Println(e.Name(), to)
		}
		return err
	},
	"namespace": func([]string) error {
		user, err := os.Readlink("/proc/self/ns/user")
		if err != nil {
			return err
		}
		mnt, err := os.Readlink("/proc/self/ns/mnt")
		fmt.Println(user, mnt)
		return err
	},
	"mount":  mountHere,
	"umount": func(args []string) error { return unix.Unmount(args[0], 0) },
	"bind":   func(args []string) error { return unix.Mount(args[0], args[0], "", unix.MS_BIND, "") },
	"read": func(args []string) error {
		data, err := os.ReadFile(args[0])
		fmt.Printf("%s\n", data)
		return err
	},
	"outside": func(args []string) error {
		path, err := Outside(args[0])
		fmt.Println(path, Kept())
		return err
	},
	// pause pretends to be podman's pause process until standard input ends.
	"pause": func(args []string) error {
		if err := os.WriteFile("/proc/self/comm", []byte("catatonit"), 0); err != nil {
			return err
		}
		if err := os.WriteFile(args[0], []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
			return err
		}
		fmt.Println(os.Getpid())
		return readUntilClosed()
	},
	// terminal says whether all three standard streams are a terminal that we are in the foreground of, then counts the
	// interrupts that come within half a second of the first.
	"terminal": func([]string) error {
		interrupts := make(chan os.Signal, 10)
		signal.Notify(interrupts, unix.SIGINT)
		for fd := range 3 {
			if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
				return err
			}
		}
		fmt.Println("foreground", inForeground())
		<-interrupts
		time.Sleep(500 * time.Millisecond)
		fmt.Println("interrupts", 1+len(interrupts))
		return nil
	},
	// signals prints each signal it gets until it gets SIGTERM.
	"signals": func([]string) error {
		got := make(chan os.Signal, 10)
		signal.Notify(got, unix.SIGHUP, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGINT, unix.SIGQUIT)
		fmt.Println("ready")
		for s := range got {
			fmt.Println(unix.SignalName(s.(syscall.Signal)))
			if s == unix.SIGTERM {
				return nil
			}
		}
		return nil
	},
	// ignored says whether SIGHUP is ignored, as nohup wants it.
	"ignored": func([]string) error {
		fmt.Println(signal.Ignored(unix.SIGHUP))
		return nil
	},
	// cycle mounts, looks and unmounts.
	"cycle": func(args []string) error {
		if err := mountHere(args); err != nil {
			return err
		}
		return unix.Unmount(args[0], 0)
	},
	// command runs another program, as kimg unshare does.
	"command": func(args []string) error {
		runtime.LockOSThread() // for the death signal
		defer runtime.UnlockOSThread()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		return cmd.Run()
	},
}

// mountHere puts a tmpfs with one file on a directory and says how to reach it from outside.
func mountHere(args []string) error {
	if err := unix.Mount("tmpfs", args[0], "tmpfs", 0, ""); err != nil {
		return err
	}
	if err := os.WriteFile(args[0]+"/file", []byte("inside"), 0o644); err != nil {
		return err
	}
	path, err := Outside(args[0])
	fmt.Println(path, Kept())
	return err
}
