package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containers/storage"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/internal/safeopen"
)

// Problem is one thing in a store that is not as it should be.
type Problem struct {
	Kind   string // layer, image, container, state, intent, staging
	ID     string // of the object: an id, or a path for intents and staging directories
	Name   string // of the object when it has one
	Class  kimg.Class
	Text   string // one line
	Advice string // what to run or do next
}

// Check looks for everything that is not as it should be: layers, images and containers as the library checks them
// (files missing or of a wrong size, records that lead nowhere), our state files, interrupted changes. It changes
// nothing and reads no file's content; ExportLayer checks that.
func (s *Store) Check(ctx context.Context) ([]Problem, error) {
	if err := check(ctx); err != nil {
		return nil, err
	}
	report, err := s.st.Check(storage.CheckMost())
	if err != nil {
		return nil, wrap("store", err)
	}
	var problems []Problem
	add := func(kind, advice string, found map[string][]error) {
		for _, id := range slices.Sorted(maps.Keys(found)) {
			for _, err := range found[id] {
				advice := advice
				if errors.Is(err, storage.ErrLayerUnreferenced) {
					advice = "kimg gc removes it"
				}
				problems = append(problems, Problem{Kind: kind, ID: id, Class: kimg.ErrDamaged, Text: err.Error(), Advice: advice})
			}
		}
	}
	add("layer", "remove the images that use it and pull or build them again", report.Layers)
	add("layer", "it lies in a read-only store: repair that one", report.ROLayers)
	add("image", "remove it (kimg rmi) and pull or build it again", report.Images)
	add("image", "it lies in a read-only store: repair that one", report.ROImages)
	add("container", "remove it (kimg rm) once its data is safe", report.Containers)
	state, err := s.checkStates(ctx)
	if err != nil {
		return nil, err
	}
	problems = append(problems, state...)
	remains, err := s.checkRemains()
	if err != nil {
		return nil, err
	}
	problems = append(problems, remains...)
	for i := range problems {
		problems[i].Text = kimg.Escape(strings.ReplaceAll(problems[i].Text, "\n", "; "), 1024)
	}
	return problems, nil
}

// checkStates reads the state file of every container of ours.
func (s *Store) checkStates(ctx context.Context) ([]Problem, error) {
	all, err := s.Containers(ctx)
	if err != nil {
		return nil, err
	}
	var problems []Problem
	for _, c := range all {
		if c.Foreign && !s.hasStateFile(c.ID) {
			continue
		}
		if err := check(ctx); err != nil {
			return nil, err
		}
		_, err := copydata.Load(s.Dir(), c.ID)
		if err == nil && c.ImageID != "" {
			_, err = c.Base(ctx)
		}
		if err != nil {
			problems = append(problems, Problem{
				Kind: "state", ID: c.ID, Name: c.Name, Class: kimg.ClassOf(err), Text: err.Error(),
				Advice: "go back to the settings of its image (kimg config --clear state), restore " + copydata.FileName + " or remove the container (kimg rm)",
			})
		}
	}
	return problems, nil
}

// checkRemains lists what killed processes left and what could not be recovered.
func (s *Store) checkRemains() ([]Problem, error) {
	var problems []Problem
	files, err := s.intentFiles()
	if err != nil {
		return nil, wrap("store", err)
	}
	dead, err := onlyDead(files)
	if err != nil {
		return nil, wrap("store", err)
	}
	for _, path := range dead {
		if strings.HasPrefix(filepath.Base(path), ".new-") {
			continue // it never became a change, promises nothing, and is removed when it is old enough
		}
		problems = append(problems, Problem{Kind: "intent", ID: path, Class: kimg.ErrDamaged,
			Text: "an interrupted change that is not taken back yet", Advice: "any kimg command on this store that may write does"})
	}
	failed, err := filepath.Glob(filepath.Join(s.intentDir(), failedPrefix+"*"))
	if err != nil {
		return nil, wrap("store", err)
	}
	for _, path := range failed {
		problems = append(problems, Problem{Kind: "intent", ID: path, Class: kimg.ErrDamaged,
			Text: "an interrupted change that could not be recovered: " + summary(path), Advice: "look for the layers it names, then remove the file"})
	}
	dirs, err := s.stagingDirs()
	if err != nil {
		return nil, wrap("store", err)
	}
	for _, dir := range dirs {
		lock, err := staleStaging(dir)
		if err != nil {
			return nil, wrap("store", err)
		}
		if lock == nil {
			continue
		}
		lock.Close()
		problems = append(problems, Problem{Kind: "staging", ID: dir, Class: kimg.ErrDamaged,
			Text: "a staging directory nobody fills", Advice: "any kimg command on this store that may write removes it"})
	}
	slices.SortFunc(problems, func(a, b Problem) int { return cmp.Compare(a.ID, b.ID) })
	return problems, nil
}

// summary says what an intent was about, as far as it can be read.
func summary(path string) string {
	f, err := safeopen.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	in, err := readIntent(f)
	if err != nil {
		return err.Error()
	}
	var parts []string
	for _, st := range in.Steps {
		for what, id := range map[string]string{"layer": st.Layer, "container": cmp.Or(st.Create, st.Remove), "image": st.Delete} {
			if id != "" {
				parts = append(parts, what+" "+kimg.Escape(id, 80))
			}
		}
	}
	return fmt.Sprintf("%s (%s)", kimg.Escape(in.Op, 80), strings.Join(parts, ", "))
}
