package main

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/cleanup"
	"github.com/kimg/kimg/store"
)

// unshareOptions are the flags of kimg unshare.
type unshareOptions struct {
	*app
	mounts []string
}

func newUnshare(a *app) *cobra.Command {
	o := &unshareOptions{app: a}
	cmd := &cobra.Command{
		Use:   "unshare [flags] [CMD [ARG…]]",
		Short: "Run a shell or a command inside kimg's namespace",
		Long: `Run a shell or a command as the root of the user namespace in which kimg works on an unprivileged user's store. Root itself
needs none: the command then just runs. The exit status of the command is passed on.`,
		Example: "  kimg unshare\n  kimg unshare --mount ROOT=CTR sh -c 'ls -l \"$ROOT\"'",
		Args:    args(0, -1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(o.mounts) > 0 {
			return a.withStore(keptNamespace, o.check, o.runMounted)(cmd, args)
		}
		if err := a.enter(keptNamespace); err != nil {
			return err
		}
		return o.exec(args, nil)
	}
	cmd.Flags().SetInterspersed(false) // the command's own flags are its own
	cmd.Flags().StringArrayVarP(&o.mounts, "mount", "m", nil, "mount a container and put its path in a variable: `variable=container`; may repeat")
	return cmd
}

func (o *unshareOptions) check([]string) error {
	for _, m := range o.mounts {
		if name, _, ok := strings.Cut(m, "="); !ok || name == "" {
			return usagef("--mount", "%s is not VARIABLE=CONTAINER", kimg.Quote(m))
		}
	}
	return nil
}

// runMounted runs the command while the containers are mounted.
func (o *unshareOptions) runMounted(ctx context.Context, st *store.Store, args []string) (err error) {
	var undo cleanup.Stack
	defer func() { err = joined(err, undo.Run(ctx)) }()
	var env []string
	for _, m := range o.mounts {
		name, ref, _ := strings.Cut(m, "=")
		c, err := container(ctx, st, ref)
		if err != nil {
			return err
		}
		path, err := c.Mount(ctx)
		if err != nil {
			return err
		}
		undo.Add(c.Unmount)
		env = append(env, name+"="+path)
	}
	return o.exec(args, env)
}

func (o *unshareOptions) exec(args, env []string) error {
	if len(args) == 0 {
		args = []string{cmp.Or(os.Getenv("SHELL"), "/bin/sh")}
	}
	if args[0] == "" {
		return usagef("unshare", "an empty command: %s", kimg.Quote(args[0]))
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	return o.runChild(cmd)
}
