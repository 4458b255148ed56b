// Command podlike is what a podman-like tool does with kimg. It opens a storage.Store of its own, keeps it for itself, and
// lets kimg work on it: a container is made from an image, mounted, written to, compared with its image, committed, and
// pushed. docs/linking.md explains the rest. It is a module of its own, as a tool that links kimg is.
//
//	podlike -root DIR -runroot DIR [-from IMAGE] -name NAME -write PATH=TEXT... [DEST...]
//
// A DEST is oci:DIR[:NAME] or docker://HOST/NAME. It prints a line for each change, the ID of the image, and the digest of
// the manifest at each DEST. An ordinary user needs subordinate ids (/etc/subuid) and nothing else.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path"
	"strings"
	"syscall"

	"github.com/containers/storage"
	"github.com/containers/storage/pkg/reexec"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store/userns"
)

// job is what the command line asks for.
type job struct {
	root, runRoot string
	from, name    string
	files         [][2]string // path below the container's root, content
	dests         []string
	insecure      bool
}

func main() {
	if reexec.Init() { // containers/storage unpacks layers of vfs, and what copy.Image brings, in a child of this program
		return
	}
	userns.Init() // for the children that userns.Run starts; does nothing in any other process
	status, err := start(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "podlike:", kimg.Line(err))
		status = 1
	}
	os.Exit(status)
}

// start works in this process, or for an ordinary user in a child that is root of a user namespace. A tool that enters its
// own namespace, as podman does, leaves package userns out.
func start(args []string) (int, error) {
	j, err := parse(args)
	if err != nil {
		return 1, err
	}
	if userns.Needed() {
		return userns.Run(userns.Options{RunRoot: j.runRoot})
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	own, err := storage.GetStore(storage.StoreOptions{GraphRoot: j.root, RunRoot: j.runRoot, GraphDriverName: "overlay"})
	if err != nil {
		return 1, err
	}
	defer func() { _, _ = own.Shutdown(false) }() // kimg never does that to a store it was given
	return 0, build(ctx, own, j)
}

func parse(args []string) (job, error) {
	var j job
	flags := flag.NewFlagSet("podlike", flag.ContinueOnError)
	flags.StringVar(&j.root, "root", "", "`directory` of the store")
	flags.StringVar(&j.runRoot, "runroot", "", "`directory` of the store's state while the machine is up")
	flags.StringVar(&j.from, "from", "", "`image` of the store; none: from scratch")
	flags.StringVar(&j.name, "name", "", "`name` of the new image")
	flags.BoolVar(&j.insecure, "insecure", false, "push over plain HTTP")
	flags.Func("write", "`PATH=TEXT`: a file with this line, any number of times", func(v string) error {
		file, text, ok := strings.Cut(v, "=")
		if file = strings.TrimPrefix(path.Clean("/"+file), "/"); !ok || file == "" {
			return fmt.Errorf("not PATH=TEXT")
		}
		j.files = append(j.files, [2]string{file, text + "\n"})
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return j, err
	}
	if j.dests = flags.Args(); j.root == "" || j.runRoot == "" || j.name == "" {
		return j, kimg.Errorf(kimg.ErrInvalid, "command line", "-root, -runroot and -name are needed")
	}
	return j, nil
}
