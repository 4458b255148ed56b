package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kimg/kimg/tests/lab"
)

// site is one place where runs happen: a private store, the content of its containers, and room for what comes out.
type site struct {
	ctx       context.Context
	kimg, dir string
	shared    string // below it is what several rows need and none changes: trees, layouts, archives
	tree      string // the content of containers
	input     string // what is loaded: an OCI layout with an image named 1, or an archive
	sync      bool   // durability is part of what is compared
	driver    string
	options   []string   // of the driver
	trash     [][]string // commands that take away what the last run left, last first
}

func newSite(ctx context.Context, kimg, shared string, g *ground, r row) (*site, error) {
	dir := filepath.Join(g.dir, strconv.Itoa(g.rows)) // short: podman takes no run root of more than 50 characters
	g.rows++
	return &site{ctx: ctx, kimg: kimg, dir: dir, shared: shared, sync: r.disk, driver: cmp.Or(r.driver, "overlay"), options: r.options}, os.Mkdir(dir, 0o700)
}

func (s *site) timed(env []string, argv ...string) (usage, error) { return timed(s.ctx, env, argv...) }

func (s *site) root() string    { return filepath.Join(s.dir, "root") }
func (s *site) runroot() string { return filepath.Join(s.dir, "run") }

func (s *site) storeFlags() []string {
	flags := []string{"--root", s.root(), "--runroot", s.runroot(), "--storage-driver", s.driver}
	for _, o := range s.options {
		flags = append(flags, "--storage-opt", o)
	}
	return flags
}

// command is a kimg command line on the store.
func (s *site) command(args ...string) []string {
	return slices.Concat([]string{s.kimg}, s.storeFlags(), args)
}

// fast is a kimg command line that does not wait for the disk where that is not part of what is compared.
func (s *site) fast(args ...string) []string {
	if !s.sync {
		args = append([]string{"--no-sync"}, args...)
	}
	return s.command(args...)
}

// prepare makes the image that every container starts from, and the content that every container gets.
func (s *site) prepare(r row) (err error) {
	if r.layers != "" { // nothing else is needed
		s.input, err = s.once("layers "+r.layers, func(dir string) error {
			return s.helper("layers", append([]string{dir}, strings.Fields(r.layers)...)...)
		})
		return err
	}
	changes := []string{"tiny"}
	if r.base != "" {
		changes = append(changes, "seed=base", r.base)
	}
	base, err := s.changed(changes...)
	if err != nil {
		return err
	}
	if s.tree, err = s.changed(strings.Fields(r.change)...); err != nil {
		return err
	}
	if _, err := s.timed(nil, s.fast("import", base, "localhost/base")...); err != nil {
		return err
	}
	switch {
	case r.archive:
		s.input, err = s.once("archive "+r.base+" "+r.change, s.archive)
	case r.image:
		err = s.whole()
	case r.images > 0:
		err = s.helper("many", s.root(), strconv.Itoa(r.images))
	}
	return err
}

// changed is a tree after the lab's changes.
func (s *site) changed(changes ...string) (string, error) {
	return s.once("tree "+strings.Join(changes, " "), func(dir string) error {
		return errors.Join(os.MkdirAll(filepath.Join(dir, "srv"), 0o755), s.helper("change", append([]string{dir}, changes...)...))
	})
}

// once is the path of something that was made for another row, or is made now.
func (s *site) once(name string, build func(path string) error) (string, error) {
	path := filepath.Join(s.shared, name)
	if _, err := os.Lstat(path); err == nil {
		return path, nil
	}
	return path, errors.Join(build(path), s.settle())
}

// fill copies the content into a mounted container and adds what makes it differ from all others: a layer that the store
// already holds would be found and not written.
const fill = `cp -a "${TREE:?}/." "$KIMG_ROOT/" && echo "$ID" >"$KIMG_ROOT/srv/unlike"`

// container makes a container of kimg with content nobody has seen.
func (s *site) container(id string) error {
	if _, err := s.timed(nil, s.fast("from", "--name", id, "localhost/base")...); err != nil {
		return err
	}
	s.later(s.command("rm", "--force", id)...)
	if _, err := s.timed([]string{"TREE=" + s.tree, "ID=" + s.dir + id}, s.command("mount", id, "--", "sh", "-c", fill)...); err != nil {
		return err
	}
	return s.settle()
}

// settle makes that nobody pays for what another one wrote.
func (s *site) settle() error {
	if !s.sync {
		return nil
	}
	_, err := s.timed(nil, "sync", "-f", s.dir)
	return err
}

// upper is where a container's own files lie.
func (s *site) upper(id string) (string, error) {
	merged, err := output(s.command("mount", id, "--", "printenv", "KIMG_ROOT")...)
	return filepath.Join(filepath.Dir(merged), "diff"), err
}

// later notes what has to be run when this run's traces are to go.
func (s *site) later(argv ...string) { s.trash = append(s.trash, argv) }

// forget takes away what the run left, which costs later runs nothing in memory. On a disk everything stays.
func (s *site) forget() error {
	trash := s.trash
	s.trash = nil
	if s.sync {
		return nil
	}
	for _, argv := range slices.Backward(trash) {
		if _, err := s.timed(nil, argv...); err != nil {
			return err
		}
	}
	return nil
}

// remove takes the whole place away, also when the run was told to end.
func (s *site) remove() {
	_, _ = timed(context.WithoutCancel(s.ctx), nil, s.command("umount", "--all")...)
	if err := removeTree(s.dir); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

// helper runs one of the lab's helpers, in a process of its own: its memory would count as that of its children.
func (s *site) helper(name string, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = s.timed([]string{lab.HelperEnv(name)}, lab.Unshared(append([]string{self}, args...)...)...)
	return err
}

// place is where a run writes to outside the store, as a transport and as a path.
func (s *site) place(transport, id string) (reference, path string) {
	path = filepath.Join(s.dir, "out-"+id)
	s.later("rm", "-rf", path)
	if strings.HasPrefix(transport, "docker-archive") {
		return transport + ":" + path + ":localhost/result:1", path
	}
	return transport + ":" + path + ":1", path
}
