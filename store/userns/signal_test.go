//go:build linux

package userns

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/testenv"
)

func TestSignalsArePassedOn(t *testing.T) {
	caught := make(chan os.Signal, 9) // what we catch our children do not ignore, also below nohup and in the background of a script
	signal.Notify(caught, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT)
	defer signal.Stop(caught)
	u := mapped(t)
	for _, way := range ways {
		cmd := u.command(way + "signals")
		cmd.SysProcAttr.Setsid = true // no terminal: interrupts are passed on too
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stdout)
		lines.Scan()
		for _, s := range []syscall.Signal{unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM} {
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			if !lines.Scan() || lines.Text() != unix.SignalName(s) {
				t.Errorf("%ssignals: %q, want %s", way, lines.Text(), unix.SignalName(s))
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// A stopped command is stopped with all its processes, and goes on with them.
func TestStopAndContinue(t *testing.T) {
	u := mapped(t)
	cmd := u.command("keep-stay")
	cmd.SysProcAttr.Setsid = true
	stdin, _ := cmd.StdinPipe()
	stdout, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var inner int
	if _, err := fmt.Fscan(stdout, &inner); err != nil {
		t.Fatal(err)
	}
	// An orphaned process group ignores SIGTSTP, so the inner process would not stop; the outer one must.
	stopped := func(pid int) bool {
		stat, _ := os.ReadFile(procPath(pid, "stat"))
		return strings.Contains(string(stat), ") T ")
	}
	_ = cmd.Process.Signal(unix.SIGTSTP)
	eventually(t, "we stop", func() bool { return stopped(cmd.Process.Pid) })
	_ = cmd.Process.Signal(unix.SIGCONT)
	eventually(t, "all go on", func() bool { return !stopped(cmd.Process.Pid) && !stopped(inner) })
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestNohupIsRespected(t *testing.T) {
	u := mapped(t)
	for _, way := range ways {
		cmd := u.command(way + "ignored")
		nohup, err := exec.LookPath("sh")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path, cmd.Args = nohup, []string{"sh", "-c", `trap "" HUP; exec "$0"`, u.binary}
		if r := finish(t, cmd); r.out != "true\n" {
			t.Errorf("%signored: %q %s", way, r.out, r.err)
		}
	}
}

// openTerminal makes a pseudo terminal.
func openTerminal(t *testing.T, owner int) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		testenv.Skip(t, "no pseudo terminals: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/dev/pts/%d", n)
	if err := os.Chown(path, owner, -1); err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, terminal
}

// Typed at a terminal, an interrupt reaches the command once: twice would mean impatience.
func TestTerminal(t *testing.T) {
	u := mapped(t)
	for _, way := range ways {
		master, terminal := openTerminal(t, u.uid)
		cmd := u.command(way + "terminal")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
		cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		terminal.Close()
		lines := bufio.NewScanner(master)
		if lines.Scan(); lines.Text() != "foreground true" {
			t.Fatalf("%sterminal: %q", way, lines.Text())
		}
		if _, err := master.Write([]byte{3}); err != nil {
			t.Fatal(err)
		}
		var last string
		for lines.Scan() {
			last = lines.Text()
		}
		if !strings.HasSuffix(last, "interrupts 1") {
			t.Errorf("%sterminal: %q", way, last)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// The user's command dies with the whole chain above it.
func TestCommandDiesWithUs(t *testing.T) {
	u := mapped(t)
	for _, way := range ways {
		c := u.begin(t, way+"command", "sh", "-c", "echo $$; exec sleep 60")
		var pid int
		if _, err := fmt.Sscan(c.first, &pid); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_ = c.cmd.Process.Kill()
		eventually(t, "the command ends", func() bool { return gone(pid) })
		c.end()
		if time.Since(start) > 50*time.Second {
			t.Error("it ended by itself")
		}
	}
}
