//go:build linux && !(amd64 || arm64 || riscv64 || ppc64le || loong64 || 386 || arm)

package userns

import (
	"os"

	"github.com/kimg/kimg"
)

// canFork says that forkInto does not work here; nsenter joins namespaces instead.
const canFork = false

func forkInto(target, *os.File, *os.File, stage, joinArgs) (*os.Process, error) {
	return nil, kimg.Errorf(kimg.ErrUnsupported, object, "joining by fork is not done on this architecture")
}
