//go:build interop

package interop

import (
	"regexp"
	"strconv"
	"testing"

	"github.com/kimg/kimg/tests/lab"
)

// TestPushAgain: an image that goes to a registry a second time is neither read nor sent; of one that was changed only the new
// layer is. Counted are what the registry gets and what the process reads; the time is a row of make bench-compare.
func TestPushAgain(t *testing.T) {
	registry := countBlobs(t, lab.Registry(t))
	s := lab.NewStore(t, "")
	s.Kimg("from", "--name", "c", "scratch")
	s.In("c", "change", "tiny", "eighth") // 64 MiB
	s.Kimg("commit", "c", "localhost/first")
	s.Kimg("from", "--name", "d", "localhost/first")
	s.In("d", "change", "seed=other", "tiny")
	s.Kimg("commit", "d", "localhost/second")
	push := func(name string) (sent, read int64, r lab.Result) {
		t.Helper()
		registry.up.Store(0)
		to := "docker://" + registry.addr + "/app:" + name
		// A shell's own account has what the children have read that it has waited for.
		argv := append([]string{"sh", "-c", `"$@" && cat /proc/$$/io`, "sh"}, s.Args("push", "-q", "--tls-verify=false", "localhost/"+name, to)...)
		if r = lab.Run(t, s.Env, argv...); r.Code != 0 {
			t.Fatal(r.Stderr)
		}
		m := regexp.MustCompile(`rchar: (\d+)`).FindStringSubmatch(r.Stdout)
		if m == nil {
			t.Fatalf("no account:\n%s", r.Stdout)
		}
		read, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return registry.up.Load(), read, r
	}
	const layer, little = 64 << 20, 4 << 20
	sent, read, first := push("first")
	if sent < layer || read < layer {
		t.Fatalf("the first push sent %d bytes and read %d: nothing is proven", sent, read)
	}
	againSent, againRead, again := push("first")
	newSent, newRead, changed := push("second")
	t.Logf("sent, read, took: %d %d %v, again %d %d %v, changed %d %d %v", sent, read, first.Took, againSent, againRead, again.Took, newSent, newRead, changed.Took)
	if againSent != 0 || againRead > little {
		t.Errorf("again: %d bytes were sent, %d read", againSent, againRead)
	}
	if newSent > little || newRead > little {
		t.Errorf("changed: %d bytes were sent, %d read", newSent, newRead)
	}
}
