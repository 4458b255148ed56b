package main

import (
	"errors"
	"path/filepath"
	"slices"

	"github.com/kimg/kimg/tests/lab"
)

// fresh is an empty store beside.
func (s *site) fresh(id string) *site {
	f := *s
	f.dir, f.trash = filepath.Join(s.dir, id), nil
	s.later(lab.Unshared("sh", "-c", `umount -q "$1/root/overlay"; rm -rf "$1"`, "-", f.dir)...)
	return &f
}

// whole makes the image that is saved and sent.
func (s *site) whole() error {
	if err := s.container("whole"); err != nil {
		return err
	}
	s.trash = nil
	_, err := s.timed(s.tmp(), s.fast("commit", "whole", "localhost/whole")...)
	return errors.Join(err, s.settle())
}

// archive makes the archive that is loaded, of the image, which podman writes.
func (s *site) archive(path string) error {
	err := s.whole()
	if err == nil {
		_, err = s.timed(s.tmp(), s.podman("save", "-q", "-o", path, "localhost/whole")...)
	}
	return err
}

func (s *site) podman(args ...string) []string {
	return lab.Unshared(slices.Concat([]string{"podman"}, s.storeFlags(), args)...)
}

// load is kimg load into an empty store.
func load(name string) contender {
	return contender{name: name, do: func(s *site, id string) (usage, error) {
		return s.timed(s.tmp(), s.fresh(id).fast("load", "-q", "-i", s.input)...)
	}}
}

// listed is load while the images of the store are listed all the time, which makes a median of many in one run.
func listed(name string) contender {
	return contender{name: name, most: 1, do: func(s *site, id string) (usage, error) {
		f := s.fresh(id)
		if _, err := s.timed(nil, f.command("images")...); err != nil { // makes the store
			return usage{}, err
		}
		return f.atOnce([][]string{f.fast("load", "-q", "-i", s.input)})
	}}
}

// copyIn is skopeo copy into an empty store.
func copyIn(name string) contender {
	return contender{name: name, do: func(s *site, id string) (usage, error) {
		return s.timed(s.tmp(), s.fresh(id).skopeo("oci:"+s.input+":1")...)
	}}
}

// skopeo copies an image into the store; flags come first.
func (s *site) skopeo(args ...string) []string {
	to := "containers-storage:[" + s.driver + "@" + s.root() + "+" + s.runroot() + "]localhost/one:1"
	return lab.Unshared(slices.Concat([]string{"skopeo", "--insecure-policy", "copy", "-q"}, args, []string{to})...)
}

func podmanLoad() contender {
	return contender{name: "podman", do: func(s *site, id string) (usage, error) {
		return s.timed(s.tmp(), s.fresh(id).podman("load", "-q", "-i", s.input)...)
	}}
}

func save(name string, flags ...string) contender {
	return saved(name, func(s *site, to string) []string {
		return s.fast(slices.Concat([]string{"save", "-q", "-o", to}, flags, []string{"localhost/whole"})...)
	})
}

func podmanSave() contender {
	return saved("podman", func(s *site, to string) []string { return s.podman("save", "-q", "-o", to, "localhost/whole") })
}

// saved measures what writes the image to a file.
func saved(name string, command func(s *site, to string) []string) contender {
	return contender{name: name, do: func(s *site, id string) (usage, error) {
		to := filepath.Join(s.dir, "out-"+id+".tar")
		s.later("rm", "-f", to)
		return s.written(to, false, command(s, to))
	}}
}
