package convert_test

import (
	"strings"
	"testing"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg/convert"
)

// TestPlatformRank is row B15: the platform that was asked for, or the nearest older variant of it.
func TestPlatformRank(t *testing.T) {
	for _, c := range []struct{ want, best, never string }{
		{"linux/arm/v8", "linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5", "linux/arm64 linux/arm/v9 linux/arm/x"},
		{"linux/arm/v7", "linux/arm/v7 linux/arm/v6 linux/arm/v5", "linux/arm/v8 linux/arm64/v8 windows/arm/v7"},
		{"linux/arm/v6", "linux/arm/v6 linux/arm/v5", "linux/arm linux/arm/v7"},
		{"linux/arm", "linux/arm linux/arm/v6 linux/arm/v5 linux/arm/v8 linux/arm/x", "linux/arm64"},
		{"linux/arm64", "linux/arm64 linux/arm64/v8.5 linux/arm64/v9", "linux/arm linux/arm/v8"},
		{"linux/arm64/v9", "linux/arm64/v9 linux/arm64/v8.5 linux/arm64/v8", "linux/arm64/v9.1"},
		{"linux/amd64", "linux/amd64 linux/amd64/v2 linux/amd64/v3", "linux/386 freebsd/amd64"},
		{"linux/amd64/v3", "linux/amd64/v3 linux/amd64/v2 linux/amd64", "linux/amd64/v4"},
		{"linux/riscv64/rva22u64", "linux/riscv64/rva22u64", "linux/riscv64 linux/riscv64/rva20u64"},
		{"linux/riscv64", "linux/riscv64", "linux/s390x"},
		{"/", "windows/amd64", ""},
	} {
		last := -1
		for _, have := range strings.Fields(c.best) {
			rank := convert.PlatformRank(platform(c.want), platform(have))
			if rank <= last {
				t.Errorf("%s: %s has rank %d after %d", c.want, have, rank, last)
			}
			last = rank
		}
		for _, have := range strings.Fields(c.never) {
			if rank := convert.PlatformRank(platform(c.want), platform(have)); rank != -1 {
				t.Errorf("%s: %s has rank %d", c.want, have, rank)
			}
		}
	}
	for _, same := range [][2]string{{"linux/arm64/v8", "linux/arm64"}, {"linux/arm64", "linux/arm64/v8"}, {"linux/arm/v7", "linux/arm"}, {"linux/amd64/v1", "linux/amd64"}} {
		if rank := convert.PlatformRank(platform(same[0]), platform(same[1])); rank != 0 {
			t.Errorf("%s and %s: rank %d", same[0], same[1], rank)
		}
	}
}

func platform(text string) ispec.Platform {
	parts := append(strings.Split(text, "/"), "")
	return ispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
}
