package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
)

// streams are the standard streams of one run.
type streams struct {
	in       *os.File
	out, err io.Writer
}

// app is what the commands of one run share: the global flags, the streams and the logger.
type app struct {
	streams
	stdout *bufio.Writer // flushed once at the end, so that a full disk behind it is an error and not silence
	log    *slog.Logger
	flags  globals
	sig    *signals
}

// globals are the flags every command takes.
type globals struct {
	root, runRoot   string
	driver          string
	driverOptions   []string
	logLevel        string
	jobs            int
	noSync          bool
	json            bool
	signaturePolicy string
}

// run executes one command line and returns the exit code. It never panics: what does is reported as class internal.
func run(args []string, std streams) (code int) {
	a := &app{streams: std, stdout: bufio.NewWriter(std.out), log: slog.New(slog.DiscardHandler)}
	root := newRoot(a, args)
	root.SetArgs(args)
	name := root.Name()
	defer func() {
		if v := recover(); v != nil {
			a.log.Debug("panic", "stack", string(debug.Stack()))
			code = a.report(name, kimg.Errorf(kimg.ErrInternal, name, "%v", v))
		}
	}()
	ctx, sig := newSignals(context.Background())
	a.sig = sig
	cmd, err := root.ExecuteContextC(ctx)
	if cmd != nil {
		name = cmd.Name()
	}
	if flushed := a.stdout.Flush(); err == nil && flushed != nil {
		err = kimg.Wrap("standard output", flushed)
	}
	var wrong usageError
	if errors.As(err, &wrong) && wantsJSON(args) {
		a.flags.json = true // the parser may have stopped before it got there
	}
	return a.report(name, err)
}

// wantsJSON reports whether a command line asks for --json, also when it cannot be parsed.
func wantsJSON(args []string) bool {
	for _, arg := range args {
		if arg == "--" {
			return false
		}
		if arg == "--json" || arg == "--json=true" {
			return true
		}
	}
	return false
}

// newRoot builds the command tree, or as much of it as a command line can mean.
func newRoot(a *app, line []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "kimg",
		Short: "Turn containers and images of a local store into OCI or Docker images",
		Long: `kimg turns containers and images of a containers/storage store into OCI or Docker images, with no daemon.

REF is an image of the store: a name, a short name, an ID, an ID prefix or name@digest.
CTR is a working container: its name, ID or ID prefix.

Exit codes: 0 done, 1 refused or failed and nothing changed, 2 wrong usage, 130 and 143 interrupted.`,
		SilenceErrors:      true,
		SilenceUsage:       true,
		DisableSuggestions: true, // they span lines; an error is one line
		Args:               cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef(args[0], "unknown command; see kimg help")
			}
			return cmd.Help()
		},
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.start() },
	}
	root.SetIn(a.in)
	root.SetOut(a.stdout)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usagef(cmd.Name(), "%w", err) })
	a.flags.register(root)
	for _, command := range commands(line) {
		root.AddCommand(command.make(a))
	}
	return root
}

// command is one command, not made yet.
type command struct {
	names string // and aliases
	make  func(*app) *cobra.Command
}

// commands lists every command of kimg, or those that a command line names: making them all, with a set of flags each, is a tenth of
// the time that a short command takes.
func commands(line []string) []command {
	all := []command{
		{"add", newAdd}, {"check", newCheck}, {"commit", newCommit}, {"config", newConfig},
		{"containers ps", newContainers}, {"convert", newConvert}, {"copy", newCopy}, {"delete", newDelete},
		{"diff", newDiff}, {"export", newExport}, {"from", newFrom}, {"gc", newGC}, {"history", newHistory},
		{"images", newImages}, {"import", newImport}, {"info", newInfo}, {"inspect", newInspect}, {"lease", newLease},
		{"list-tags", newListTags}, {"load", newLoad}, {"manifest", newManifest}, {"mount", newMount}, {"pull", newPull},
		{"push", newPush}, {"rm", newRm}, {"rmi", newRmi}, {"save", newSave}, {"tag", newTag}, {"tree", newTree},
		{"umount unmount", newUmount}, {"unshare", newUnshare}, {"untag", newUntag}, {"validate", newValidate},
		{"version", newVersion},
	}
	named := slices.DeleteFunc(slices.Clone(all), func(c command) bool {
		return !slices.ContainsFunc(strings.Fields(c.names), func(name string) bool { return slices.Contains(line, name) })
	})
	if len(named) == 0 || strings.HasPrefix(line[0], cobra.ShellCompRequestCmd) {
		return all
	}
	return named
}

// group makes a command of others.
func group(cmd *cobra.Command, subs ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef(kimg.Quote(args[0]), "unknown command; see kimg %s --help", cmd.Name())
		}
		return cmd.Help()
	}
	cmd.AddCommand(subs...)
	return cmd
}

func (g *globals) register(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&g.root, "root", "", "`directory` of the store (default from storage.conf)")
	f.StringVar(&g.runRoot, "runroot", "", "`directory` of the store's run-time state (default from storage.conf)")
	f.StringVar(&g.driver, "storage-driver", "", "storage `driver`: overlay or vfs (default from storage.conf)")
	f.StringArrayVar(&g.driverOptions, "storage-opt", nil, "`option` of the storage driver, as in storage.conf; may repeat")
	f.StringVar(&g.logLevel, "log-level", "warn", "log to standard error from this `level` on: debug, info, warn or error")
	f.IntVar(&g.jobs, "jobs", 0, "at most `N` things at once (default: the number of processors)")
	f.BoolVar(&g.noSync, "no-sync", false, "do not wait for the disk; only for stores that may be thrown away")
	f.BoolVar(&g.json, "json", false, "print results and errors as JSON")
	f.StringVar(&g.signaturePolicy, "signature-policy", "", "signature policy `file` (default: the system's)")
}

// start checks the global flags and sets the logger up. It runs before every command.
func (a *app) start() error {
	level, err := logLevel(a.flags.logLevel)
	if err != nil {
		return err
	}
	if a.flags.jobs < 0 {
		return usagef("--jobs", "%d is not a number of jobs", a.flags.jobs)
	}
	a.log = newLogger(a.err, level, a.flags.json)
	bridgeLogrus(a.log, level)
	return nil
}

// printf writes to standard output. Errors are kept by the buffer and found when it is flushed.
func (a *app) printf(format string, args ...any) { _, _ = fmt.Fprintf(a.stdout, format, args...) }

// println writes one line of text that came from a store or an image: control characters are escaped.
func (a *app) println(text string) { a.printf("%s\n", escape(text)) }

// logLevel parses the value of --log-level.
func logLevel(word string) (slog.Level, error) {
	switch strings.ToLower(word) {
	case "trace", "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error", "fatal", "panic":
		return slog.LevelError, nil
	}
	return 0, usagef("--log-level", "%s is none of debug, info, warn, error", kimg.Quote(word))
}
