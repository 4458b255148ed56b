//go:build powercut

package powercut

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/kimg/kimg/tests/lab"
)

// cuts is how often the power goes in each test; KIMG_CUTS sets another number.
func cuts(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv("KIMG_CUTS"))
	if err != nil {
		return 20
	}
	return n
}

// bench is a store on a disk, and what kimg reported to be in it.
type bench struct {
	*lab.Store
	disk     *device
	reported map[string]string // image name -> id
	next     int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	disk, run := newDevice(t, 4096), lab.TempDir(t) // which goes after what is unmounted there
	b := &bench{Store: lab.NewStore(t, disk.dir), disk: disk, reported: map[string]string{}}
	b.RunRoot = filepath.Join(run, "run")
	b.reported["localhost/base:latest"] = b.Kimg("import", lab.SmallBase(t), "localhost/base")
	return b
}

// container makes one with content of its own, durable before anything is cut.
func (b *bench) container() (ctr, image string) {
	b.next++
	ctr, image = fmt.Sprintf("c%d", b.next), fmt.Sprintf("localhost/i%d", b.next)
	b.Kimg("from", "--name", ctr, "localhost/base")
	b.In(ctr, "change", "seed="+ctr, "some")
	b.disk.sync()
	return ctr, image
}

// verify is what must hold after a cut: everything reported is there and reads with its digests.
func (b *bench) verify(t *testing.T, when string) lab.Audit {
	t.Helper()
	b.Kimg("images") // the next command works, and clears what was left
	a := b.Sound(when)
	for name, id := range b.reported {
		if got := a.Images[name]; got.ID != id {
			t.Errorf("%s: image %s was reported as %.12s and is %.12s", when, name, id, got.ID)
		}
	}
	return a
}

// TestCutAfterSuccess: a power cut right after exit 0 loses nothing.
func TestCutAfterSuccess(t *testing.T) {
	b := newBench(t)
	for i := range cuts(t) {
		ctr, image := b.container()
		args := []string{"commit", ctr, image}
		if i%2 == 1 {
			args = []string{"commit", "--rm", ctr, image}
		}
		id := b.Kimg(args...)
		b.disk.cut()
		b.reported[image+":latest"] = id
		b.disk.reboot(b.Store)
		a := b.verify(t, fmt.Sprintf("cut %d after exit 0", i))
		if _, there := a.Containers[ctr]; there != (i%2 == 0) {
			t.Errorf("cut %d: container %s is there: %v", i, ctr, there)
		}
		if t.Failed() {
			return
		}
	}
	b.CheckClean()
}

// TestCutAtRandom: a power cut at any moment of a commit leaves the store as before or after it; a repeat succeeds.
func TestCutAtRandom(t *testing.T) {
	b := newBench(t)
	ctr, image := b.container()
	start := time.Now()
	b.reported[image+":latest"] = b.Kimg("commit", ctr, image)
	usual := time.Since(start)

	before, after := 0, 0
	for i := range cuts(t) {
		ctr, image := b.container()
		args := []string{"commit", ctr, image}
		if i%2 == 1 {
			args = []string{"commit", "--rm", ctr, image}
		}
		moment := time.Duration(rand.Int64N(int64(usual + usual/4)))
		when := fmt.Sprintf("cut %d, %v into a %v commit", i, moment.Round(time.Millisecond), usual.Round(time.Millisecond))
		id, ok := b.cutDuring(t, when, moment, args)
		if ok {
			b.reported[image+":latest"] = id
			after++
		} else {
			before++
		}
		b.disk.reboot(b.Store)
		t.Log(when)
		a := b.verify(t, when)
		if _, there := a.Containers[ctr]; there {
			b.reported[image+":latest"] = b.Kimg(args...)
			b.verify(t, when+", repeated")
		} else if _, done := a.Images[image+":latest"]; !done {
			t.Errorf("%s: neither the container nor its image is there", when)
		} else {
			b.reported[image+":latest"] = a.Images[image+":latest"].ID
		}
		if t.Failed() {
			return
		}
	}
	b.CheckClean()
	t.Logf("%d cuts before the end of the commit, %d after it", before, after)
}

// cutDuring runs kimg and cuts the power at a moment. It returns what kimg printed, and whether it reported success. A
// dead disk answers every call with an error, so the program has to end soon.
func (b *bench) cutDuring(t *testing.T, when string, moment time.Duration, args []string) (id string, ok bool) {
	t.Helper()
	argv := b.Args(args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	time.Sleep(moment)
	b.disk.cut()
	select {
	case err := <-done:
		return firstLine(stdout.String()), err == nil
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Signal(syscall.SIGQUIT) // prints where every goroutine is
		<-done
		t.Errorf("%s: kimg hangs on the dead disk:\n%s", when, &stderr)
		return "", false
	}
}

func firstLine(s string) string {
	for i, c := range s {
		if c == '\n' {
			return s[:i]
		}
	}
	return s
}
