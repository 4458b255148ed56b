package edit_test

import (
	"fmt"

	"github.com/kimg/kimg/copydata"
	"github.com/kimg/kimg/copydata/edit"
)

// What docker commit --change and buildah config do, on the state of a container.
func Example() {
	state, err := copydata.New(copydata.Origin{OS: "linux", Arch: "amd64"}, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	edits, err := edit.Instructions(`ENV PATH=/opt/bin:$PATH`, `ENTRYPOINT ["/app", "--serve"]`)
	if err != nil {
		fmt.Println(err)
		return
	}
	port, err := edit.Set("port", "8080", "53/udp")
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := state.Update(append(edits, port).Apply); err != nil {
		fmt.Println(err)
		return
	}
	config := state.Config().OCI().Config
	fmt.Println(config.Env[0])
	fmt.Println(config.Entrypoint, config.ExposedPorts)

	wrong, err := edit.Set("port", "80000")
	fmt.Println(err, edit.List{wrong}.Check())
	// Output:
	// PATH=/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
	// [/app --serve] map[53/udp:{} 8080/tcp:{}]
	// <nil> config.ExposedPorts: "80000/tcp" is not PORT[-PORT][/tcp|udp|sctp] with ports from 1 to 65535
}
