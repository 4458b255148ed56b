//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/tests/lab"
)

// TestSecondPush: what went to a registry or a layout before is neither compressed nor sent again, and skopeo unpacks it.
func TestSecondPush(t *testing.T) {
	testenv.Need(t, "skopeo")
	addr, dir := lab.Registry(t), lab.TempDir(t)
	s := lab.NewStore(t, "")
	conf := filepath.Join(dir, "registries.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "[[registry]]\nlocation = %q\ninsecure = true\n", addr), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Env = append(s.Env, "CONTAINERS_REGISTRIES_CONF="+conf)
	s.Kimg("import", lab.SmallBase(t), "localhost/base")
	s.Kimg("from", "--name", "c", "localhost/base")
	s.Kimg("from", "--name", "same", "localhost/base")
	s.Kimg("add", "c", conf, "/new")
	for _, dest := range []string{"docker://" + addr + "/app:1", "oci:" + filepath.Join(dir, "layout") + ":t"} {
		for _, compression := range []string{"gzip", "zstd"} {
			push := func(ctr string) (made string, sent int64) {
				t.Helper()
				r := s.Try("commit", "--timestamp", "1", "--json", "--progress", "json", "--compression", compression, ctr, dest)
				if r.Code != 0 {
					t.Fatalf("%s to %s: %s", compression, dest, r.Stderr)
				}
				for line := range strings.Lines(r.Stderr) {
					var e struct {
						Place, Step string
						End         *string
						Bytes       int64
					}
					if json.Unmarshal([]byte(line), &e) == nil && e.Place == dest && e.Step == "layers" && e.End != nil {
						sent += e.Bytes
					}
				}
				return r.Stdout, sent
			}
			for _, ctr := range []string{"c", "same"} {
				first, sent := push(ctr)
				if ctr == "c" && sent == 0 {
					t.Errorf("%s to %s: nothing was sent", compression, dest)
				}
				env := s.Env
				s.Env = append(slices.Clone(env), "TMPDIR=/nonexistent") // where compressed layers would lie
				again, sent := push(ctr)
				s.Env = env
				if sent != 0 || again != first {
					t.Errorf("%s to %s again: %d bytes, another image: %v", compression, dest, sent, again != first)
				}
			}
			out := filepath.Join(dir, compression+strings.SplitN(dest, ":", 2)[0])
			skopeo(t, "copy", "-q", "--src-tls-verify=false", "--dest-decompress", dest, "dir:"+out)
			s.Kimg("validate", "dir:"+out)
		}
	}
}
