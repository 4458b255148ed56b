package layerdiff_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/testenv"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/layerdiff"
)

// A file that becomes another one before any of it is in the layer is taken as it is then.
func TestReplacedBeforeItIsRead(t *testing.T) {
	for _, stage := range []bool{false, true} {
		quiet(t)
		stack := upper(t, slowTree(testimage.Node{Path: "z", Mode: 0o644, Fill: 1 << 20}))
		path := filepath.Join(stack.Upper, "z")
		o := layerdiff.Options{Progress: once(func() {
			must(t, os.WriteFile(path+".new", bytes.Repeat([]byte("new"), 1<<20), 0o600), os.Rename(path+".new", path))
		})}
		var got layerdiff.Blob
		var err error
		if stage {
			got, err = layerdiff.Stage(t.Context(), tempDir(t), io.Discard, stack, o)
		} else {
			got, err = layerdiff.Write(t.Context(), io.Discard, stack, o)
		}
		must(t, err)
		want, err := layerdiff.Write(t.Context(), io.Discard, stack, layerdiff.Options{})
		must(t, err)
		if got.DiffID != want.DiffID {
			t.Errorf("stage %v: the layer is not that of the tree", stage)
		}
	}
}

// A file that somebody rewrites all the time is in the layer as it was at one moment, or an error names it.
func TestTornFiles(t *testing.T) {
	quiet(t)
	for _, size := range []int{100_000, 1 << 20} {
		stack := upper(t, testimage.Tree{{Path: "f", Mode: 0o644}})
		f, err := os.OpenFile(filepath.Join(stack.Upper, "f"), os.O_WRONLY, 0)
		must(t, err)
		rewrite := func(c byte) { // in two halves: there is a moment at which only the first is new
			data := bytes.Repeat([]byte{c}, size/2)
			for at := range int64(2) {
				_, err := f.WriteAt(data, at*int64(len(data)))
				must(t, err)
			}
		}
		rewrite(255)
		stop, ended := make(chan bool), make(chan bool)
		go func() {
			defer close(ended)
			for c := byte(0); ; c++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(c%8) * 10 * time.Millisecond):
					rewrite(c)
				}
			}
		}()
		whole, torn := 0, 0
		// Two seconds, and on a machine so busy that no rest of the writer's is long enough, until one is.
		for begin := time.Now(); time.Since(begin) < 2*time.Second || whole == 0 && time.Since(begin) < time.Minute; {
			var layer bytes.Buffer
			_, err := layerdiff.Write(t.Context(), &layer, stack, layerdiff.Options{Live: true})
			if err != nil {
				if torn++; !errors.Is(err, kimg.ErrBusy) || !strings.HasPrefix(err.Error(), "/f: ") {
					t.Fatal(err)
				}
				continue
			}
			whole++
			r := tar.NewReader(&layer)
			_, err = r.Next()
			must(t, err)
			data, err := io.ReadAll(r)
			must(t, err)
			first, last := data[0], data[size-1]
			if n := bytes.Count(data[:size/2], data[:1]) + bytes.Count(data[size/2:], data[size-1:]); n != size || first != last && first != last+1 {
				t.Errorf("%d bytes of %d belong to halves of %d and %d", n, size, first, last)
			}
		}
		close(stop)
		<-ended
		must(t, f.Close())
		t.Logf("%d bytes: %d times whole, %d times an error", size, whole, torn)
		if whole == 0 {
			t.Errorf("a file of %d bytes that rests now and then is never read", size)
		}
	}
}

// A write call may take longer than a file rests: what it has half done is waited for. Here it needs a page that is not there yet.
func TestLongWrite(t *testing.T) {
	testenv.Root(t) // others may not stop the kernel at a page
	quiet(t)
	for _, size := range []int{64 << 10, 16 << 20} { // of a batch, and streamed
		stack := upper(t, testimage.Tree{{Path: "f", Mode: 0o644}})
		f, err := os.OpenFile(filepath.Join(stack.Upper, "f"), os.O_WRONLY, 0)
		must(t, err)
		_, err = f.Write(bytes.Repeat([]byte("o"), size))
		must(t, err)
		data, asked, arrive := lateEnd(t, size)
		written := make(chan error, 1)
		go func() {
			_, err := unix.Pwrite(int(f.Fd()), data, 0)
			written <- err
		}()
		asked()

		var layer bytes.Buffer
		read := make(chan error, 1)
		go func() {
			_, err := layerdiff.Write(t.Context(), &layer, stack, layerdiff.Options{Live: true})
			read <- err
		}()
		select {
		case err := <-read:
			read <- err
		case <-time.After(300 * time.Millisecond):
		}
		arrive()
		must(t, <-written, <-read, f.Close())
		if news, olds := bytes.Count(layer.Bytes(), []byte("n")), bytes.Count(layer.Bytes(), []byte("oo")); news < size-os.Getpagesize() || olds > 0 {
			t.Errorf("%d bytes are new, and %d pairs old", news, olds)
		}
	}
}

// lateEnd is memory of "n" whose last page is waited for until arrive is called; then it is zeros. asked returns when somebody waits.
func lateEnd(t *testing.T, size int) (data []byte, asked, arrive func()) {
	t.Helper()
	data, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	must(t, err)
	t.Cleanup(func() { must(t, unix.Munmap(data)) })
	_ = unix.Madvise(data, unix.MADV_NOHUGEPAGE) // not every kernel has any
	page := os.Getpagesize()
	copy(data, bytes.Repeat([]byte("n"), size-page))
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	for _, call := range [][]uint64{
		{0xc018aa3f, 0xaa, 0, 0}, // UFFDIO_API
		{0xc020aa00, uint64(uintptr(unsafe.Pointer(&data[size-page]))), uint64(page), 1, 0}, // UFFDIO_REGISTER, missing pages
	} {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(call[0]), uintptr(unsafe.Pointer(&call[1]))); errno != 0 {
			t.Fatal(errno)
		}
	}
	asked = func() {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for end := time.Now().Add(time.Minute); fds[0].Revents == 0 && time.Now().Before(end); {
			_, _ = unix.Poll(fds, 100) // a signal may end it
		}
		if fds[0].Revents != unix.POLLIN {
			t.Errorf("nobody waits: %#x", fds[0].Revents)
		}
	}
	return data, asked, func() { must(t, unix.Close(int(fd))) }
}

// Without a writer nothing is torn, however new the files are, and the wait for them is short.
func TestNothingTornWithoutAWriter(t *testing.T) {
	quiet(t)
	var tree testimage.Tree
	for i := range 500 {
		tree = append(tree, testimage.Node{Path: fmt.Sprintf("f%03d", i), Mode: 0o644, Fill: int64(i) * 1000})
	}
	stack := upper(t, tree)
	must(t, os.Chmod(filepath.Join(stack.Upper, "f000"), 0o600), os.Chmod(filepath.Join(stack.Upper, "f499"), 0o600))
	live, err := layerdiff.Stage(t.Context(), tempDir(t), nil, stack, layerdiff.Options{Live: true})
	must(t, err)
	idle, err := layerdiff.Write(t.Context(), io.Discard, stack, layerdiff.Options{})
	if err != nil || live.DiffID != idle.DiffID {
		t.Errorf("a live tree gives another layer (%v)", err)
	}
}
