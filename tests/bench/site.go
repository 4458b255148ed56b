package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

// site is one place where runs happen: a private store, the content of its containers, and room for what comes out.
type site struct {
	kimg, dir string
	sync      bool // durability is part of what is compared
	driver    string
	options   []string   // of the driver
	trash     [][]string // commands that take away what the last run left, last first
}

func newSite(kimg, place string, r row) (*site, error) {
	dir, err := os.MkdirTemp(place, "kimg-bench-")
	return &site{kimg: kimg, dir: dir, sync: r.disk, driver: cmp.Or(r.driver, "overlay"), options: r.options}, err
}

func (s *site) root() string    { return filepath.Join(s.dir, "root") }
func (s *site) runroot() string { return filepath.Join(s.dir, "run") }
func (s *site) tree() string    { return filepath.Join(s.dir, "tree") }

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
func (s *site) prepare(r row) error {
	if r.layers != "" { // nothing else is needed
		return errors.Join(s.helper("layers", append([]string{filepath.Join(s.dir, imageDir)}, strings.Fields(r.layers)...)...), s.settle())
	}
	base := filepath.Join(s.dir, "base")
	for _, d := range []string{"etc", "srv", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(base, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(s.tree(), "srv"), 0o755); err != nil {
		return err
	}
	if err := s.helper("change", base, "tiny"); err != nil {
		return err
	}
	if r.base != "" {
		if err := s.helper("change", base, "seed=base", r.base); err != nil {
			return err
		}
	}
	if r.change != "" {
		if err := s.helper("change", s.tree(), r.change); err != nil {
			return err
		}
	}
	_, err := timed(nil, s.fast("import", base, "localhost/base")...)
	switch {
	case err != nil:
		return err
	case r.archive:
		return s.archive()
	case r.image:
		return s.whole()
	case r.images == 0:
		return nil
	}
	return s.helper("many", s.root(), s.runroot(), strconv.Itoa(r.images))
}

// fill copies the content into a mounted container and adds what makes it differ from all others: a layer that the store
// already holds would be found and not written.
const fill = `cp -a "$TREE/." "$KIMG_ROOT/" && echo "$ID" >"$KIMG_ROOT/srv/unlike"`

// container makes a container of kimg with content nobody has seen.
func (s *site) container(id string) error {
	if _, err := timed(nil, s.fast("from", "--name", id, "localhost/base")...); err != nil {
		return err
	}
	s.later(s.command("rm", "--force", id)...)
	if _, err := timed([]string{"TREE=" + s.tree(), "ID=" + s.dir + id}, s.command("mount", id, "--", "sh", "-c", fill)...); err != nil {
		return err
	}
	return s.settle()
}

// settle makes that nobody pays for what another one wrote.
func (s *site) settle() error {
	if !s.sync {
		return nil
	}
	_, err := timed(nil, "sync", "-f", s.dir)
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
		if _, err := timed(nil, argv...); err != nil {
			return err
		}
	}
	return nil
}

// remove takes the whole place away.
func (s *site) remove() {
	_, _ = timed(nil, s.command("umount", "--all")...)
	if testenv.IsRoot() {
		_, _ = timed(nil, "umount", "-q", filepath.Join(s.root(), s.driver))
	}
	if _, err := timed(nil, lab.Unshared("rm", "-rf", s.dir)...); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

// helper runs one of the lab's helpers, in a process of its own: its memory would count as that of its children.
func (s *site) helper(name string, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = timed([]string{lab.HelperEnv(name)}, lab.Unshared(append([]string{self}, args...)...)...)
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
