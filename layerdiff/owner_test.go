package layerdiff

import (
	"testing"

	"github.com/kimg/kimg/internal/atfs"
	"github.com/kimg/kimg/internal/testimage"
)

// FuzzAttributes: what a file carries as an access list or a capability is refused or mapped, never a panic, and what
// identity maps is what it was.
func FuzzAttributes(f *testing.F) {
	f.Add(testimage.ACL(0o750, map[uint32]uint16{1000: 7}, map[uint32]uint16{5: 4}))
	f.Add(testimage.Capability(1<<10, 0))
	f.Add(testimage.Capability(1<<10, 100000))
	f.Add("")
	f.Add("\x02\x00\x00\x00\x01")
	path := func() string { return "/x" }
	f.Fuzz(func(t *testing.T, value string) {
		for _, name := range []string{aclAccess, aclDefault, capability} {
			all := []atfs.Xattr{{Name: name, Value: value}}
			a, err := ids{}.attributes(path, all)
			if err == nil && a.layer[0] != all[0] && name != capability {
				t.Errorf("identity changed %q into %q", value, a.layer[0].Value)
			}
			m := IDMap{{Container: 0, Host: 100000, Size: 65536}}
			if a, err := (ids{m, m}).attributes(path, all); err == nil && len(a.layer[0].Value) > len(value) {
				t.Errorf("%q became %q", value, a.layer[0].Value)
			}
		}
	})
}
