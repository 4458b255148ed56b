package convert_test

import (
	"fmt"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/docker"
)

// An image of an old Docker becomes a valid OCI one, and the report says what that took.
func ExampleConfig_JSON() {
	source := `{"created":"2014-02-01T00:00:00.500Z","config":{"Cmd":"top","Hostname":"h"},"rootfs":{"type":"layers","diff_ids":[]}}`
	c, err := convert.Parse(convert.Document{Format: convert.DockerV2S2, Config: []byte(source)}, nil)
	if err != nil {
		fmt.Println(kimg.Line(err))
		return
	}
	data, report, err := c.JSON(convert.OCI)
	if err != nil {
		fmt.Println(kimg.Line(err))
		return
	}
	fmt.Println(string(data))
	for _, change := range report {
		fmt.Println(change)
	}
	// Output:
	// {"created":"2014-02-01T00:00:00.500Z","config":{"Cmd":["top"],"Hostname":"h"},"rootfs":{"type":"layers","diff_ids":[]},"architecture":"amd64","os":"linux"}
	// changed config.Cmd: OCI has a list here; the bare string became a list of one
	// added architecture: OCI requires an architecture and the image names none
	// added os: OCI requires an operating system and the image names none
}

// An edit changes its member and no other byte.
func ExampleConfig_Edit() {
	source := `{"architecture":"arm64", "os":"linux", "x-mine":1.50, "config":{"User":"app"}, "rootfs":{"type":"layers","diff_ids":[]}}`
	c, err := convert.Parse(convert.Document{Format: convert.OCI, Config: []byte(source)}, nil)
	if err != nil {
		fmt.Println(kimg.Line(err))
		return
	}
	c, err = c.Edit(func(img *docker.Image) error {
		img.Config.WorkingDir = "/srv"
		return nil
	})
	if err != nil {
		fmt.Println(kimg.Line(err))
		return
	}
	data, _, err := c.JSON(convert.OCI)
	fmt.Println(string(data), err)
	// Output:
	// {"architecture":"arm64","os":"linux","x-mine":1.50,"config":{"User":"app","WorkingDir":"/srv"},"rootfs":{"type":"layers","diff_ids":[]}} <nil>
}
