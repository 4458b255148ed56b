package image

import (
	"context"
	"errors"
	"io"
	"reflect"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/registry"
	"github.com/kimg/kimg/store/transfer"
)

// atOnce is how many parts of a blob are asked for in one request: servers do not take headers of any length.
const atOnce = 256

// Sections implements transfer.SectionSource.
func (g gated) Sections(ctx context.Context, d digest.Digest, parts []transfer.Section) (io.ReadCloser, error) {
	r, ok := g.from.(*remoteSource)
	if !ok || !r.knowsRanges(ctx, d) {
		return nil, kimg.Errorf(kimg.ErrUnsupported, d.String(), "there are only whole blobs")
	}
	return &sections{from: r, ctx: ctx, digest: d, left: parts}, nil
}

// knowsRanges asks once for the first byte of a blob. What comes is the body of the answer itself, or, when the whole blob comes, the
// library's own cut of it: then it would read the blob again for each request, up to the last part that is wanted.
func (r *remoteSource) knowsRanges(ctx context.Context, d digest.Digest) bool {
	r.probe.Do(func() {
		watched := r.Watch(ctx)
		defer watched.Stop()
		streams, errs, err := r.sections(watched, d, []transfer.Section{{Length: 1}})
		if err != nil {
			return
		}
		select {
		case s, ok := <-streams:
			if ok {
				r.ranges = reflect.TypeOf(s).Name() != "signalCloseReader"
				watched.Stop()
				_ = s.Close() // only read from
			}
		case <-watched.Done():
		}
		drain(streams, errs)
	})
	return r.ranges
}

// sections asks for parts of a blob. The library's registries have a method for that, whose types are internal to it.
func (r *remoteSource) sections(ctx context.Context, d digest.Digest, parts []transfer.Section) (chan io.ReadCloser, chan error, error) {
	no := kimg.Errorf(kimg.ErrUnsupported, "", "the image library does not fetch parts of blobs")
	at := r.Now()
	get := reflect.ValueOf(*at).MethodByName("GetBlobAt")
	if !get.IsValid() || get.Type().NumIn() != 3 || get.Type().NumOut() != 3 || get.Type().In(2).Kind() != reflect.Slice ||
		!reflect.TypeFor[transfer.Section]().ConvertibleTo(get.Type().In(2).Elem()) {
		return nil, nil, no
	}
	list := reflect.MakeSlice(get.Type().In(2), 0, len(parts))
	for _, p := range parts {
		list = reflect.Append(list, reflect.ValueOf(p).Convert(list.Type().Elem()))
	}
	out := get.Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(types.BlobInfo{Digest: d, Size: -1}), list})
	err, _ := out[2].Interface().(error)
	streams, ok := out[0].Interface().(chan io.ReadCloser)
	errs, alright := out[1].Interface().(chan error)
	if !ok || !alright {
		err = errors.Join(err, no)
	}
	return streams, errs, r.Judge(ctx, at, err)
}

// drain ends what the library has begun, in its own time.
func drain(streams chan io.ReadCloser, errs chan error) {
	go func() {
		for streams != nil || errs != nil {
			select {
			case s, ok := <-streams:
				if !ok {
					streams = nil
				} else {
					_ = s.Close() // only read from
				}
			case _, ok := <-errs:
				if !ok {
					errs = nil
				}
			}
		}
	}()
}

// sections are parts of a blob, one after the other. What breaks is asked for again, from where it was.
type sections struct {
	from   *remoteSource
	ctx    context.Context
	digest digest.Digest
	left   []transfer.Section // not asked for
	asked  []transfer.Section // in the request under way
	rest   transfer.Section   // of the one that is read
	tries  int

	body    io.ReadCloser
	streams chan io.ReadCloser
	errs    chan error
	watched *registry.Watch // nil: nothing was asked for
}

func (s *sections) Read(p []byte) (int, error) {
	for {
		n, err := s.read(p)
		if n > 0 || err == nil {
			return n, nil // what else there is comes again
		}
		if err == io.EOF {
			return 0, err
		}
		if err = registry.Classify(err); s.tries >= s.from.Retries || !s.from.Passing(err) || s.ctx.Err() != nil {
			return 0, err
		}
		_ = s.Close() // only read from
		if s.rest.Length > 0 {
			s.asked = append([]transfer.Section{s.rest}, s.asked...)
		}
		s.left, s.asked, s.rest = append(s.asked, s.left...), nil, transfer.Section{}
		if err := s.from.Wait(s.ctx, s.tries, err); err != nil {
			return 0, err
		}
		s.tries++
	}
}

func (s *sections) read(p []byte) (int, error) {
	for s.rest.Length == 0 {
		if s.body != nil {
			_ = s.body.Close() // only read from
			s.body = nil
		}
		if len(s.asked) == 0 {
			if len(s.left) == 0 {
				return 0, io.EOF
			}
			if err := s.next(); err != nil {
				return 0, err
			}
		}
		s.watched.Wait()
		select {
		case body, ok := <-s.streams:
			if !ok {
				return 0, registry.Because(s.watched, io.ErrUnexpectedEOF)
			}
			s.body, s.rest, s.asked = s.watched.Body(body), s.asked[0], s.asked[1:]
		case err, ok := <-s.errs:
			if !ok {
				s.errs = nil // a stream may still come
			} else {
				return 0, registry.Because(s.watched, err)
			}
		case <-s.watched.Done():
			return 0, context.Cause(s.watched)
		}
	}
	n, err := s.body.Read(p[:min(uint64(len(p)), s.rest.Length)])
	s.rest.Offset, s.rest.Length = s.rest.Offset+uint64(n), s.rest.Length-uint64(n)
	if err == io.EOF {
		err = nil
		if s.rest.Length > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, registry.Because(s.watched, err)
}

// next asks for the next parts.
func (s *sections) next() (err error) {
	_ = s.Close() // only read from
	s.asked, s.left = s.left[:min(atOnce, len(s.left))], s.left[min(atOnce, len(s.left)):]
	s.watched = s.from.Watch(s.ctx)
	s.streams, s.errs, err = s.from.sections(s.watched, s.digest, s.asked)
	return registry.Because(s.watched, err)
}

// Close ends the request under way.
func (s *sections) Close() error {
	if s.watched == nil {
		return nil
	}
	s.watched.Stop()
	if s.body != nil {
		_ = s.body.Close() // only read from
	}
	drain(s.streams, s.errs)
	s.body, s.streams, s.errs = nil, nil, nil
	return nil
}
