package store

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kimg/kimg"
)

// The drivers a build without cgo has.
const (
	overlay = "overlay"
	vfs     = "vfs"
)

// Every driver containers/storage ever had: their directories mark a store as theirs.
var knownDrivers = []string{overlay, vfs, "btrfs", "zfs", "aufs"}

// driverOptions are those the drivers have, in the spelling that an option's key comes to.
var driverOptions = map[string][]string{
	overlay: {
		"override_kernel_check", "mountopt", "size", "inodes", "imagestore", "additionalimagestore", "additionallayerstore",
		"use_composefs", "mount_program", "skip_mount_home", "ignore_chown_errors", "force_mask",
	},
	vfs: {"imagestore", "ignore_chown_errors"},
}

// known leaves out the options that a driver does not have, which the library would refuse, and tells which. One without a value
// is class invalid.
func known(driver string, options []string, log *slog.Logger) (have []string, err error) {
	for _, o := range options {
		key, _, ok := strings.Cut(o, "=")
		if !ok {
			return nil, kimg.Errorf(kimg.ErrInvalid, "storage option "+kimg.Quote(o), "is not of the form KEY=VALUE")
		}
		prefixes, names := []string{"overlay.", "overlay2.", "."}, driverOptions[overlay] // which the library tries first
		if driver == vfs {
			prefixes, names = []string{"vfs.", "."}, driverOptions[vfs]
		}
		name := strings.ToLower(strings.TrimSpace(key))
		for _, prefix := range prefixes {
			name = strings.TrimPrefix(name, prefix)
		}
		if !slices.Contains(names, name) {
			log.Warn("the storage option is not known and left out", "option", key, "driver", driver)
			continue
		}
		have = append(have, o)
	}
	return have, nil
}

// driverOption finds the value of a driver option ("overlay.size=1G", ".size=1G", "size=1G") as the overlay driver
// reads it: the last one wins.
func driverOption(options []string, name string) (string, bool) {
	value, found := "", false
	for _, o := range options {
		key, v, _ := strings.Cut(o, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		for _, prefix := range []string{"overlay.", "overlay2.", "."} {
			key = strings.TrimPrefix(key, prefix)
		}
		if key == name {
			value, found = strings.TrimSpace(v), true
		}
	}
	return value, found
}

// existingDrivers lists the drivers that already keep records under a graph root.
func existingDrivers(root string) []string {
	var found []string
	for _, d := range knownDrivers {
		for _, kind := range []string{"-images", "-layers"} {
			if _, err := os.Stat(filepath.Join(root, d+kind)); err == nil {
				found = append(found, d)
				break
			}
		}
	}
	return found
}

// chooseDriver decides which driver opens a graph root, or refuses: never a second driver's store beside an existing
// one, and only drivers a build without cgo has.
func chooseDriver(root, asked string, options []string) (string, error) {
	if asked == "overlay2" {
		asked = overlay
	}
	existing := existingDrivers(root)
	switch {
	case asked == "" && len(existing) == 1:
		asked = existing[0]
	case asked == "" && len(existing) > 1:
		return "", kimg.Errorf(kimg.ErrInvalid, root, "holds stores of several drivers (%s): choose one with --storage-driver", strings.Join(existing, ", "))
	case asked != "" && len(existing) > 0 && !slices.Contains(existing, asked):
		return "", kimg.Errorf(kimg.ErrUnsupported, root, "holds a store of driver %s; a second one of driver %s beside it would hide it", strings.Join(existing, ", "), kimg.Quote(asked))
	}
	switch asked {
	case "", overlay, vfs:
	case "btrfs", "zfs", "aufs":
		return "", kimg.Errorf(kimg.ErrUnsupported, root, "storage driver %s is not part of this program (it needs cgo)", asked)
	default:
		return "", kimg.Errorf(kimg.ErrUnsupported, root, "unknown storage driver %s", kimg.Quote(asked))
	}
	for _, name := range []string{"size", "inodes"} {
		if v, ok := driverOption(options, name); ok && v != "" && v != "0" && asked != vfs {
			return "", kimg.Errorf(kimg.ErrUnsupported, root, "storage option overlay.%s (quotas) is not part of this program (it needs cgo)", name)
		}
	}
	return asked, nil
}

// canWalk tells whether the files of a layer can be read and written as they lie in its directories; the error of class
// unsupported says why not. Listing works in every store that can be opened.
func (s *Store) canWalk() error {
	options := s.st.GraphOptions()
	if s.st.GraphDriverName() != overlay {
		return nil
	}
	if on, ok := driverOption(options, "use_composefs"); ok {
		if yes, err := strconv.ParseBool(on); err != nil || yes {
			return kimg.Errorf(kimg.ErrUnsupported, s.st.GraphRoot(), "storage option use_composefs: layers can only be exported")
		}
	}
	if mask, ok := driverOption(options, "force_mask"); ok && mask != "" {
		return kimg.Errorf(kimg.ErrUnsupported, s.st.GraphRoot(), "storage option force_mask: owners and modes are not those on disk; layers can only be exported")
	}
	return nil
}

// mountProgram returns the program that mounts this store's layers instead of the kernel, "" when the kernel does. The
// driver picks fuse-overlayfs by itself where the kernel cannot; a flag file in its directory tells.
func (s *Store) mountProgram() string {
	if s.st.GraphDriverName() != overlay {
		return ""
	}
	if program, ok := driverOption(s.st.GraphOptions(), "mount_program"); ok && program != "" {
		return program
	}
	flag, err := os.ReadFile(filepath.Join(s.st.GraphRoot(), overlay, ".has-mount-program"))
	if err != nil || strings.TrimSpace(string(flag)) != "true" {
		return ""
	}
	path, err := exec.LookPath("fuse-overlayfs")
	if err != nil {
		return ""
	}
	return path
}
