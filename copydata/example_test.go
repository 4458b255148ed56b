package copydata_test

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/copydata"
)

// A container is made from scratch, edited, and read by another process.
func Example() {
	id := strings.Repeat("ab", 32)
	dir := &copydata.Memory{} // a store has a real one

	c, err := copydata.New(copydata.Origin{OS: "linux", Arch: "amd64"}, id, "box")
	if err != nil {
		fmt.Println(kimg.Line(err))
		return
	}
	if err := c.Save(dir); err != nil {
		fmt.Println(kimg.Line(err))
		return
	}

	c, err = copydata.Load(dir, id)
	if err != nil {
		fmt.Println(kimg.Line(err))
		return
	}
	err = c.Update(func(s *copydata.Settings) error {
		s.Image.Config.Cmd = []string{"/hello"}
		s.Image.Config.Labels = map[string]string{"stage": "test"}
		s.Annotations["org.example.owner"] = "me"
		return nil
	})
	if err := errors.Join(err, c.Save(dir)); err != nil {
		fmt.Println(kimg.Line(err))
		return
	}

	config, _, err := c.Config().JSON(convert.OCI)
	fmt.Println(c.Generation(), err)
	fmt.Println(string(config))
	// Output:
	// 2 <nil>
	// {"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/","Cmd":["/hello"],"Labels":{"stage":"test"}},"rootfs":{"type":"layers","diff_ids":[]}}
}
