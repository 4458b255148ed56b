package copydata_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/copydata"
)

// Many writers that load again when they are refused lose no update.
func TestNoLostUpdate(t *testing.T) {
	_, dir := saved(t, origin(t, convert.OCI))
	const writers, rounds = 8, 5
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for r := range rounds {
				for {
					c, err := copydata.Load(dir, ctr)
					if err == nil {
						err = c.Update(func(s *copydata.Settings) error {
							s.Image.Config.Env = append(s.Image.Config.Env, fmt.Sprintf("W%d_%d=1", w, r))
							return nil
						})
					}
					if err == nil {
						err = c.Save(dir)
					}
					if err == nil {
						break
					}
					if !errors.Is(err, kimg.ErrBusy) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	c := load(t, dir)
	if n := len(c.Config().Docker().Config.Env); n != writers*rounds || c.Generation() != writers*rounds+1 {
		t.Errorf("%d updates, generation %d", n, c.Generation())
	}
}

// The largest image that is accepted fits into a state file, edited or not.
func TestLargestImageFits(t *testing.T) {
	o := origin(t, convert.OCI)
	o.Manifest = nil
	big := strings.Replace(config, `"comment": "hi"`, `"comment": "`+strings.Repeat("<", 4<<20-len(config)-10)+`"`, 1)
	o.Config = []byte(big)
	c, dir := saved(t, o)
	if data, _, err := c.Config().JSON(convert.OCI); err != nil || string(data) != big {
		t.Fatal("the bytes changed")
	}
	if err := c.Update(func(s *copydata.Settings) error { s.Image.OS = "plan9"; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	if load(t, dir).Config().OCI().OS != "plan9" {
		t.Error("the edit is lost")
	}
	// What does not fit is refused before anything is written, and the state stays usable.
	err := c.Update(func(s *copydata.Settings) error {
		s.Annotations["x"] = strings.Repeat("x", copydata.MaxSize)
		return nil
	})
	if err == nil {
		err = c.Save(dir)
	}
	if !errors.Is(err, kimg.ErrLimit) || load(t, dir).Generation() != c.Generation() {
		t.Error(err)
	}
}

// A failed save can be repeated.
func TestSaveAfterFailure(t *testing.T) {
	c, dir := saved(t, copydata.Origin{})
	if err := c.Save(full{dir}); !errors.Is(err, kimg.ErrNoSpace) {
		t.Error(err)
	}
	if err := c.Save(dir); err != nil || c.Generation() != 2 {
		t.Error(err)
	}
}

// full is a directory on a full disk.
type full struct{ copydata.Directory }

func (full) Replace(string, string, uint64, []byte) error { return kimg.ErrNoSpace }
