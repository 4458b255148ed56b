package convert

import (
	"strconv"
	"strings"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// usual are the variants that an image of an architecture is for when it names none (OCI image index, "platform").
var usual = map[string]string{"arm": "v7", "arm64": "v8", "amd64": "v1"}

// PlatformRank says how well an image for have serves whoever asks for want: 0 is best, -1 not at all. An empty member of
// want asks for nothing. A processor runs what was made for older variants of its architecture: arm/v8 is served by v8, v7,
// v6 and v5, in that order, and never the other way round. Without a variant the usual one is best, then older ones, then newer ones.
func PlatformRank(want, have ispec.Platform) int {
	if want.OS != "" && want.OS != have.OS || want.Architecture != "" && want.Architecture != have.Architecture {
		return -1
	}
	asked := want.Variant
	if asked == "" {
		asked = usual[have.Architecture]
	}
	w, known := variantLevel(have.Architecture, asked)
	h, ok := variantLevel(have.Architecture, have.Variant)
	switch {
	case asked == have.Variant:
		return 0
	case known && ok && h <= w:
		return w - h
	case want.Variant != "":
		return -1
	case ok:
		return maxLevel + h
	}
	return 2 * maxLevel
}

// For finds the image for a platform: of those that serve it best the first. When there is none it is the first image without a platform,
// which serves whom its own configuration says; that is for the caller to see. Entries that are no images serve nobody.
func (v IndexView) For(want ispec.Platform) (best ispec.Descriptor, ok bool) {
	rank := -1
	for _, d := range v.Manifests {
		if !IsImage(d) {
			continue
		}
		if d.Platform == nil {
			if !ok {
				best, ok = d, true
			}
			continue
		}
		if r := PlatformRank(want, *d.Platform); r >= 0 && (rank < 0 || r < rank) {
			best, rank, ok = d, r, true
		}
	}
	return best, ok
}

const maxLevel = 100 * 100

// variantLevel orders the variants of an architecture; false for those nobody can order.
func variantLevel(architecture, variant string) (int, bool) {
	if usual[architecture] == "" {
		return 0, false
	}
	if variant == "" {
		variant = usual[architecture]
	}
	major, minor, _ := strings.Cut(strings.TrimPrefix(variant, "v"), ".")
	n, err := strconv.ParseUint(major, 10, 6)
	m, merr := strconv.ParseUint("0"+minor, 10, 6)
	return int(n*100 + m), err == nil && merr == nil
}
