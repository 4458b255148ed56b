package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is the release this program was built from. The build sets it: -ldflags "-X main.version=1.2.3".
var version = "0.1.0-dev"

// versionJSON is what kimg version --json prints.
type versionJSON struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	CGO     bool   `json:"cgo"`
	Storage string `json:"storage"` // version of the storage library: whose store format is spoken
	Image   string `json:"image"`   // version of the image library
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print what this program was built from",
		Example: "  kimg version --json",
		Args:    args(0, 0),
		RunE:    func(*cobra.Command, []string) error { return runVersion(a) },
	}
}

func runVersion(a *app) error {
	v := buildFacts()
	if a.flags.json {
		return a.printJSON(v)
	}
	a.printf("kimg version %s (%s, %s/%s, storage %s, image %s)\n", v.Version, v.Go, v.OS, v.Arch, v.Storage, v.Image)
	return nil
}

func buildFacts() versionJSON {
	v := versionJSON{Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, dep := range info.Deps {
		switch dep.Path {
		case "github.com/containers/storage":
			v.Storage = dep.Version
		case "github.com/containers/image/v5":
			v.Image = dep.Version
		}
	}
	for _, s := range info.Settings {
		if s.Key == "CGO_ENABLED" {
			v.CGO = s.Value == "1"
		}
	}
	return v
}
