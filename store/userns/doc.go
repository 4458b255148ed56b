// Package userns lets an unprivileged user work on a containers/storage store: it re-executes the running program inside a
// user and mount namespace in which that user is root, without cgo and without a daemon.
//
// Life of a call, from outside:
//
//  1. main calls [Init] first (after containers/storage's reexec.Init). In an ordinary process that does nothing.
//  2. [Needed] says whether this process lacks the privileges a store needs.
//  3. [Run] picks a namespace, runs the same program with the same arguments in it, and returns its exit status.
//
// Which namespace, in this order: the one held by kimg's own keeper while something is mounted or used there; that of
// rootless podman's pause process, so that both tools see the same mounts; an idle keeper; else a new one. A new one ends
// with the command and takes its mounts along, so whoever mounts asks for Options.Keep: then a keeper is started, a child
// process that holds the namespace for as long as anything is mounted there or anybody uses it, and then leaves by itself.
//
// From outside, the same user reaches a tree mounted in a kept namespace by the path [Outside] returns.
//
// Commands import this package, libraries do not: none of the module reaches it. A program that enters a namespace of its own
// before it opens its storage.Store has no use for it.
package userns

import "log/slog"

// Options say how [Run] re-executes the program. The zero value runs the same arguments in whatever namespace is there.
type Options struct {
	// RunRoot is the store's run directory, where the keeper's files live. Empty means containers/storage's default for
	// this user: below XDG_RUNTIME_DIR, else /run/user/UID, else a directory of the user's own in the temporary directory.
	RunRoot string

	// Keep promises that mounts made by this command outlive it: without a living namespace a keeper is started.
	// Every command that mounts needs it, also those that unmount again: only in a shared namespace do two of them
	// see each other's mounts.
	Keep bool

	// Args are the arguments, with the program's name first. Nil means os.Args.
	Args []string

	// Env is the environment. Nil means os.Environ. What containers/storage must know about the namespace is added.
	Env []string

	// Logger hears a warning when only a single id can be mapped. Nil means silence.
	Logger *slog.Logger
}

func (o Options) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}
