package commit_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kimg/kimg/commit"
	"github.com/kimg/kimg/store"
	"github.com/kimg/kimg/store/storetest"
)

// BenchmarkBuilder is one build of 30 steps on an image of one layer. It reports the medians of the first and of the last five steps
// and their ratio. Of a durable store, as users have it, that is to stay within 20 % of 1: a step costs what it changes, not what is
// below. In memory and without syncs, with next to nothing written, what the kernel and the library do for each layer below shows.
func BenchmarkBuilder(b *testing.B) {
	b.Run("durable", func(b *testing.B) {
		dir, err := os.MkdirTemp("", "kimg-")
		must(b, err)
		b.Cleanup(func() { os.RemoveAll(dir) })
		s, err := store.Open(store.Options{Root: filepath.Join(dir, "g"), RunRoot: filepath.Join(dir, "r"), Driver: "overlay", DriverOptions: []string{}})
		must(b, err)
		b.Cleanup(func() { _, _ = s.Storage().Shutdown(true) })
		benchmarkBuilder(b, s, 256<<10)
	})
	b.Run("memory", func(b *testing.B) { benchmarkBuilder(b, storetest.Kinds()[0].New(b), 4<<10) })
}

func benchmarkBuilder(b *testing.B, s *store.Store, size int) {
	const steps, near = 30, 5
	storetest.AddImage(b, s, "base", "a")
	took := make([][]time.Duration, steps)
	for n := 0; b.Loop(); n++ {
		l, err := commit.From(b.Context(), s, "base", commit.FromOptions{})
		must(b, err)
		for i := range steps {
			start := time.Now()
			next := buildStep(b, l, n*steps+i, size)
			took[i] = append(took[i], time.Since(start))
			must(b, l.Release(b.Context()))
			l = next
		}
		must(b, l.Release(context.Background()))
	}
	first := median(slices.Concat(took[:near]...))
	last := median(slices.Concat(took[steps-near:]...))
	b.ReportMetric(float64(first.Microseconds()), "µs/first-step")
	b.ReportMetric(float64(last.Microseconds()), "µs/last-step")
	b.ReportMetric(float64(last)/float64(first), "last/first")
}

func buildStep(b *testing.B, on *commit.ROLayer, n, size int) *commit.ROLayer {
	rw, err := on.NewRWLayer(b.Context())
	must(b, err)
	for f := range 20 {
		must(b, os.WriteFile(filepath.Join(rw.Root(), fmt.Sprintf("%d-%d", n, f)), fmt.Appendf(nil, "%*d", size, n), 0o644))
	}
	l, err := rw.Commit(b.Context())
	must(b, err)
	must(b, rw.Release(b.Context()))
	return l
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}
