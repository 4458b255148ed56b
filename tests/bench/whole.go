package main

import (
	"errors"
	"path/filepath"
	"slices"

	"github.com/kimg/kimg/tests/lab"
)

// What is loaded, below the place: an OCI layout with an image named 1, and an archive.
const (
	imageDir    = "image"
	archiveFile = "image.tar"
)

// fresh is an empty store beside.
func (s *site) fresh(id string) *site {
	f := *s
	f.dir, f.trash = filepath.Join(s.dir, "store-"+id), nil
	s.later(lab.Unshared("sh", "-c", `umount -q "$1/root/overlay"; rm -rf "$1"`, "-", f.dir)...)
	return &f
}

// whole makes the image that is saved and sent.
func (s *site) whole() error {
	if err := s.container("whole"); err != nil {
		return err
	}
	s.trash = nil
	_, err := timed(s.tmp(), s.fast("commit", "whole", "localhost/whole")...)
	return errors.Join(err, s.settle())
}

// archive makes the archive that is loaded, of the image, which podman writes.
func (s *site) archive() error {
	if err := s.whole(); err != nil {
		return err
	}
	if _, err := timed(s.tmp(), s.podman("save", "-q", "-o", filepath.Join(s.dir, archiveFile), "localhost/whole")...); err != nil {
		return err
	}
	return s.settle()
}

func (s *site) podman(args ...string) []string {
	return lab.Unshared(slices.Concat([]string{"podman"}, s.storeFlags(), args)...)
}

// load is kimg load into an empty store.
func load(name, from string) contender {
	return contender{name: name, do: func(s *site, id string) (usage, error) {
		return timed(s.tmp(), s.fresh(id).fast("load", "-q", "-i", filepath.Join(s.dir, from))...)
	}}
}

// listed is load while the images of the store are listed all the time.
func listed(name, from string) contender {
	return contender{name: name, do: func(s *site, id string) (usage, error) {
		f := s.fresh(id)
		if _, err := timed(nil, f.command("images")...); err != nil { // makes the store
			return usage{}, err
		}
		return f.atOnce([][]string{f.fast("load", "-q", "-i", filepath.Join(s.dir, from))})
	}}
}

// copyIn is skopeo copy into an empty store.
func copyIn(name string) contender {
	return contender{name: name, do: func(s *site, id string) (usage, error) {
		return timed(s.tmp(), s.fresh(id).skopeo("oci:"+filepath.Join(s.dir, imageDir)+":1")...)
	}}
}

// skopeo copies an image into the store; flags come first.
func (s *site) skopeo(args ...string) []string {
	to := "containers-storage:[" + s.driver + "@" + s.root() + "+" + s.runroot() + "]localhost/one:1"
	return lab.Unshared(slices.Concat([]string{"skopeo", "--insecure-policy", "copy", "-q"}, args, []string{to})...)
}

func podmanLoad() contender {
	return contender{name: "podman", do: func(s *site, id string) (usage, error) {
		return timed(s.tmp(), s.fresh(id).podman("load", "-q", "-i", filepath.Join(s.dir, archiveFile))...)
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
		u, err := timed(s.tmp(), command(s, to)...)
		if err == nil {
			u.size, err = sizeOf(to)
		}
		return u, err
	}}
}
