// Command assertstatic fails unless the binary it is given was built without cgo and needs no dynamic loader.
package main

import (
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"os"
)

func main() {
	for _, name := range os.Args[1:] {
		if err := check(name); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
	}
}

func check(name string) error {
	info, err := buildinfo.ReadFile(name)
	if err != nil {
		return err
	}
	setting := map[string]string{}
	for _, s := range info.Settings {
		setting[s.Key] = s.Value
	}
	if setting["CGO_ENABLED"] != "0" {
		return fmt.Errorf("built with CGO_ENABLED=%s", setting["CGO_ENABLED"])
	}
	if setting["-trimpath"] != "true" {
		return errors.New("built without -trimpath")
	}
	f, err := elf.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			return fmt.Errorf("not static: it has a %v segment", p.Type)
		}
	}
	if f.Section(".symtab") != nil {
		return errors.New("not stripped")
	}
	return nil
}
