package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
)

// outFile is where a command writes a tar: --output, or standard output.
type outFile struct {
	*app
	file string
}

func (o *outFile) register(f *pflag.FlagSet, what string) {
	f.StringVarP(&o.file, "output", "o", "", "write the "+what+" to a `file` (default: standard output)")
}

func (o *outFile) toStdout() bool { return o.file == "" || o.file == "-" }

// checkTerminal refuses to write bytes to a terminal.
func (o *outFile) checkTerminal() error {
	if out, ok := o.out.(*os.File); o.toStdout() && ok && terminal(out) {
		return usagef("--output", "standard output is a terminal; use -o FILE")
	}
	return nil
}

// write writes where the user wants it. A file is there complete, or not at all.
func (o *outFile) write(write func(io.Writer) error) error {
	if o.toStdout() {
		signal.Ignore(unix.SIGPIPE) // a reader that goes away is an error, and leaves no lease and no mount behind
		err := write(o.stdout)
		if errors.Is(err, unix.EPIPE) {
			err = kimg.Errorf(kimg.ErrIO, "standard output", "%w", unix.EPIPE)
		}
		return err
	}
	file, err := newResultFile(o.file, 0, mayReplace)
	if err != nil {
		return err
	}
	defer file.abort()
	w := bufio.NewWriterSize(file.f, 1<<20)
	if err = write(w); err == nil {
		err = w.Flush()
	}
	if err != nil {
		return kimg.Wrap(o.file, err)
	}
	return file.finish()
}
