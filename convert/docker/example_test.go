package docker_test

import (
	"encoding/json"
	"fmt"

	"github.com/kimg/kimg/convert/docker"
)

// Old Docker wrote a command as a string; it is read as the list it means.
func Example() {
	var img docker.Image
	err := json.Unmarshal([]byte(`{"os":"linux","architecture":"amd64","config":{"Cmd":"top","StopTimeout":0},"rootfs":{"type":"layers"}}`), &img)
	fmt.Println(img.OS, img.Config.Cmd, *img.Config.StopTimeout, err)
	// Output: linux [top] 0 <nil>
}
