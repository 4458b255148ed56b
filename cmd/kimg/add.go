package main

import (
	"context"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/treecopy"
	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/store"
)

// maxAccounts bounds a container's /etc/passwd and /etc/group, in bytes.
const maxAccounts = 4 << 20

// addOptions are the flags of kimg add.
type addOptions struct {
	*app
	chown, chmod string
	mode         *os.FileMode
}

func newAdd(a *app) *cobra.Command {
	o := &addOptions{app: a}
	cmd := &cobra.Command{
		Use:   "add [flags] CTR SRC… DST",
		Short: "Copy files and directories into a container",
		Long: `Copy files and directories into a container.

The content of a directory goes into DST, which is made if need be. A file becomes DST, or goes into it when DST is a
directory, ends in a slash, or there are several sources. A relative DST is below the container's working directory. Links in
the container are followed inside the container only; a file is replaced, never written through. Everything belongs to the
container's root unless --chown says otherwise. Modes, times, hard links, user attributes and file capabilities are kept. When
anything fails, the container stays as it was.`,
		Example: "  kimg add CTR app /usr/local/bin/\n  kimg add --chown www-data --chmod 644 CTR site/ /srv/www",
		Args:    args(3, -1),
		RunE:    a.withStore(keptNamespace, o.check, o.run),
	}
	cmd.Flags().StringVar(&o.chown, "chown", "", "owner in the container: `user[:group]`, names or numbers")
	cmd.Flags().StringVar(&o.chmod, "chmod", "", "`mode` of everything that is copied, octal")
	return cmd
}

func (o *addOptions) check([]string) error {
	if o.chmod == "" {
		return nil
	}
	bits, err := strconv.ParseUint(o.chmod, 8, 32)
	if err != nil || bits > 0o7777 {
		return usagef("--chmod", "%s is not an octal mode", kimg.Quote(o.chmod))
	}
	mode := os.FileMode(bits & 0o777)
	for bit, flag := range map[uint64]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky} {
		if bits&bit != 0 {
			mode |= flag
		}
	}
	o.mode = &mode
	return nil
}

func (o *addOptions) run(ctx context.Context, st *store.Store, args []string) error {
	c, err := container(ctx, st, args[0])
	if err != nil {
		return err
	}
	sources, dst := args[1:len(args)-1], args[len(args)-1]
	if !path.IsAbs(dst) {
		settings, err := o.state(ctx, st, c)
		if err != nil {
			return err
		}
		slash := strings.HasSuffix(dst, "/")
		dst = path.Join("/", settings.Config().OCI().Config.WorkingDir, dst)
		if slash {
			dst += "/"
		}
	}
	uids, gids := idMap(c.UIDMap), idMap(c.GIDMap)
	return c.WithMount(ctx, func(root string) error {
		copyOptions := treecopy.Options{Mode: o.mode, NoSync: o.flags.noSync}
		if err := o.owner(root, uids, gids, &copyOptions); err != nil {
			return err
		}
		return treecopy.Copy(ctx, root, sources, dst, copyOptions)
	})
}

// owner finds out who the copies belong to, as ids of the host.
func (o *addOptions) owner(root string, uids, gids layerdiff.IDMap, t *treecopy.Options) error {
	uid, gid, err := lookupOwner(root, o.chown)
	if err != nil {
		return err
	}
	for _, id := range []struct {
		what string
		m    layerdiff.IDMap
		in   uint32
		out  *uint32
	}{{"user", uids, uid, &t.UID}, {"group", gids, gid, &t.GID}, {"user", uids, 0, &t.Root}} {
		host, ok := id.m.ToHost(id.in)
		if !ok {
			return kimg.Errorf(kimg.ErrInvalid, "--chown", "%s %d is not mapped in this container", id.what, id.in)
		}
		*id.out = host
	}
	return nil
}

// lookupOwner turns user[:group] into ids of the container, with its own /etc/passwd and /etc/group. Without a group it is
// the user's own; for a number that nobody has, the same number.
func lookupOwner(root, owner string) (uid, gid uint32, err error) {
	if owner == "" {
		return 0, 0, nil
	}
	user, group, hasGroup := strings.Cut(owner, ":")
	uid, gid, err = lookup(root, "/etc/passwd", user)
	if err != nil || !hasGroup || group == "" {
		return uid, gid, err
	}
	gid, _, err = lookup(root, "/etc/group", group)
	return uid, gid, err
}

// lookup finds a name in a file of accounts and returns the third and, of /etc/passwd, the fourth field. A number is
// itself, whether or not the file knows it.
func lookup(root, file, name string) (id, other uint32, err error) {
	number, numErr := strconv.ParseUint(name, 10, 32)
	isNumber := numErr == nil && number < 1<<32-1
	data, err := treecopy.ReadFile(root, file, maxAccounts)
	if err != nil && !(isNumber && kimg.ClassOf(err) == kimg.ErrNotFound) {
		return 0, 0, kimg.Wrap("--chown", err)
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) < 4 || fields[0] != name && !(isNumber && fields[2] == name) {
			continue
		}
		first, err1 := strconv.ParseUint(fields[2], 10, 32)
		second, err2 := strconv.ParseUint(fields[3], 10, 32)
		if err1 == nil {
			if err2 != nil {
				second = first
			}
			return uint32(first), uint32(second), nil
		}
	}
	if isNumber {
		return uint32(number), uint32(number), nil
	}
	return 0, 0, kimg.Errorf(kimg.ErrNotFound, "--chown", "%s is not in the container's %s", kimg.Quote(name), file)
}
