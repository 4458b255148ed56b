package layerdiff

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/tarsplit"
	"github.com/kimg/kimg/layerdiff/view"
)

const (
	maxEntries = 2_000_000 // members of one layer
	maxBatches = 16        // 16 MiB read ahead at most
)

// Write writes what a stack changes of its base as an uncompressed tar and describes it. It reads every file once. With w = io.Discard it only computes the digest. Write returns soon after ctx is done, unless w blocks.
//
// The layer says what has to be done to the base to get the tree, and nothing else: how the tree came about does not
// matter. So unmodified copies that overlay made of lower files are left out, deletions of what the base does not have and
// directories in which nothing changed as well, and a directory that was replaced is compared with the one before it: what
// is gone is deleted by name. A file that changes while it is read, or vanishes, is an error of class busy.
func Write(ctx context.Context, w io.Writer, stack view.Stack, o Options) (Blob, error) {
	return newRun(ctx, w, nil, stack, o).do(stack, nil)
}

// Stage writes the same layer into an empty directory in the form overlay keeps on disk, owned by the ids the container
// sees, and its tar-split record (uncompressed JSON lines) to tarSplit, which may be nil. The digest is that of the tar
// that [Write] writes. The directory's own mode, owner and times are left alone; nothing is synced. After an error the
// directory holds a part of the layer: the caller removes it.
func Stage(ctx context.Context, dir string, tarSplit io.Writer, stack view.Stack, o Options) (Blob, error) {
	s, err := newStager(dir, o.Links && o.Clamp == nil)
	if err != nil {
		return Blob{}, err
	}
	defer s.close()
	return newRun(ctx, o.Tar, tarSplit, stack, o).do(stack, s)
}

// run is one layer being written. A producer walks the tree and cuts it into batches; workers prepare batches in
// parallel; the caller's goroutine emits them in order; the sink hashes what is emitted.
//
//	producer -> jobs  -> workers
//	         -> queue -> emitter -> sink -> free -> producer
type run struct {
	tree    *tree
	ctx     context.Context
	cancel  context.CancelFunc
	stop    atomic.Bool // ctx is done
	walked  error       // how the walk ended; to be read when queue is closed
	failed  atomic.Bool // directories are only closed from now on
	o       Options
	sink    *sink
	split   *tarsplit.Writer
	stage   *stager
	free    chan *batch
	jobs    chan *batch
	queue   chan *batch
	maxOpen int64 // file descriptors that directories may hold
}

func newRun(ctx context.Context, w, split io.Writer, stack view.Stack, o Options) *run {
	x := &run{
		o: o, sink: newSink(w, o.Progress), split: tarsplit.NewWriter(split),
		free: make(chan *batch, maxBatches), jobs: make(chan *batch, maxBatches), queue: make(chan *batch, maxBatches),
		maxOpen: openLimit(),
	}
	x.tree = newTree(stack, o, x.cancelled)
	x.ctx, x.cancel = context.WithCancel(ctx)
	for range maxBatches {
		x.free <- &batch{entries: make([]entry, 0, batchEntries), done: make(chan struct{}, 1)}
	}
	return x
}

// openLimit leaves half of the process's file descriptors to others.
func openLimit() int64 {
	limit := unix.Rlimit{Cur: 1024}
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) // the value above is the kernel's default
	return int64(min(limit.Cur/2, 8192))
}

// cancelled returns why the run should end, or nil. It costs nothing to ask.
func (x *run) cancelled() error {
	if !x.stop.Load() {
		return nil
	}
	return x.ended()
}

// ended returns why the context is done, or nil when it is not.
func (x *run) ended() error { return kimg.Wrap("", context.Cause(x.ctx)) }

// out passes bytes on that stay untouched until a release.
func (x *run) out(data []byte) error {
	if err := x.sink.put(data); err != nil {
		return fmt.Errorf("writing the layer: %w", err)
	}
	return nil
}

// do runs everything and waits for all goroutines it started.
func (x *run) do(stack view.Stack, s *stager) (blob Blob, err error) {
	defer x.sink.close()
	defer x.cancel()
	defer context.AfterFunc(x.ctx, func() { x.stop.Store(true) })()
	if err := x.ended(); err != nil {
		return Blob{}, err
	}
	x.stage = s
	root, err := x.tree.root()
	if err != nil {
		return Blob{}, err
	}
	var wg sync.WaitGroup
	wg.Go(func() { x.produce(root) })
	jobs := x.o.Jobs
	if jobs <= 0 {
		jobs = runtime.GOMAXPROCS(0)
	}
	for range jobs {
		wg.Go(x.work)
	}
	m := &emitter{x: x, links: map[fileID]firstName{}, uids: map[uint32]bool{}, gids: map[uint32]bool{}}
	err = x.emit(m)
	if err != nil {
		x.failed.Store(true)
		x.cancel()
	}
	wg.Wait()
	if err != nil {
		for b := range x.queue {
			x.abandon(b.entries)
		}
		return Blob{}, err
	}
	blob, err = m.finish()
	if err == nil && x.o.Logger != nil {
		x.o.Logger.DebugContext(x.ctx, "layer made", "upper", stack.Upper, "diffid", blob.DiffID, "bytes", blob.Size,
			"entries", blob.Entries, "left_out", len(blob.LeftOut))
	}
	return blob, err
}

// emit takes batches as the walk filled them, waits for each and emits it.
func (x *run) emit(m *emitter) error {
	for b := range x.queue {
		<-b.done // soon after the end, too: workers see it as well
		err := m.batch(b)
		if err != nil {
			x.failed.Store(true)
		}
		for i := range b.entries {
			if err2 := x.done(&b.entries[i]); err == nil {
				err = err2
			}
		}
		clear(b.entries)
		b.entries = b.entries[:0]
		x.sink.releaseBatch(b, x.free)
		if err != nil {
			return err
		}
	}
	if x.walked != nil {
		return x.walked
	}
	return x.ended()
}

// done gives up an entry's directories.
func (x *run) done(e *entry) error {
	var err error
	if e.sub != nil {
		err = x.leave(e.sub)
	}
	if err2 := x.leave(e.dir); err == nil {
		err = err2
	}
	return err
}

// abandon does so for entries that will not be emitted.
func (x *run) abandon(entries []entry) {
	x.failed.Store(true)
	for i := range entries {
		_ = x.done(&entries[i]) // a failed run only closes
	}
}

// leave gives up one use of a directory. The last one gives the staged directory its metadata and closes it.
func (x *run) leave(d *dir) (err error) {
	for ; d != nil && d.users.Add(-1) == 0; d = d.parent {
		if d.staged >= 0 && err == nil && !x.failed.Load() {
			err = x.stage.finishDir(d)
		}
		x.tree.close(d)
	}
	return err
}
