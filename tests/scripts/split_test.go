package scripts

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg/internal/testenv"
)

// Where images and containers lie on different file systems nothing can be linked or renamed from one to the other: it is
// copied, with the same result.
func TestSplitFileSystems(t *testing.T) {
	testenv.Root(t) // a file system that stays mounted
	for _, driver := range []string{"overlay", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			l := newLab(t)
			images := filepath.Join(l.dir, "i")
			check(t, os.Mkdir(images, 0o755))
			check(t, unix.Mount("tmpfs", images, "tmpfs", 0, "size=64m"))
			conf := fmt.Sprintf("[storage]\ndriver = %q\ngraphroot = %q\nrunroot = %q\nimagestore = %q\n", driver, l.root(), l.runRoot(), images)
			check(t, os.WriteFile(filepath.Join(l.dir, "storage.conf"), []byte(conf), 0o644))
			fill(t, l)
			want := l.must(t, "diff", "--tar", "-o", "dest/want.tar", "--json", "c1")
			for _, args := range []string{"commit c1 one:1", "commit --rm c1 two:1"} {
				l.must(t, strings.Fields(args)...)
			}
			if got := l.must(t, "diff", "--tar", "-o", "dest/got.tar", "--json", "two:1"); got != want {
				t.Errorf("the layer is\n%s, the change was\n%s", got, want)
			}
			layers, err := os.ReadDir(filepath.Join(images, driver+"-layers"))
			if err != nil || len(layers) == 0 {
				t.Errorf("the layers are not where images belong: %v", err)
			}
			for _, args := range []string{"validate two:1", "check", "rm c2", "rmi --all", "check"} {
				l.must(t, strings.Fields(args)...)
			}
		})
	}
}
