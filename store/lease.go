package store

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containers/storage"
	"github.com/containers/storage/types"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/failpoint"
)

// A lease is a container record on an image that nobody works in: the one thing that keeps every tool on the store, also
// podman system prune --all, from removing the image. Its terms are the record's metadata. One that a process holds has a
// lock file beside it, whose lock goes with the process; no pid is written down, as stores are shared between machines.
const (
	leasePrefix = "kimg-lease-" // of the record's name
	leaseLock   = "kimg-lease.lock"
	leaseTTL    = time.Hour
	leaseStart  = time.Minute // a record this old without its lock file was made by somebody who was killed meanwhile
	maxLeaseTTL = 100 * 365 * 24 * time.Hour
	maxLeaseTag = 256
)

// LeaseOptions say what is to stay, for how long, and why.
type LeaseOptions struct {
	Image    string        // as [Store.Resolve] finds it; a manifest list is held itself
	Owner    string        // who wants it, for people; at most 256 bytes
	Purpose  string        // what for; at most 256 bytes
	TTL      time.Duration // until it is over unless it is renewed; 0: one hour
	Detached bool          // it does not end with this process, only by its time
}

// Lease keeps an image, with its layers, in the store until its time is over, Release is called or, unless it is detached,
// the process ends or forgets the Lease. Everybody who collects garbage removes it then. It is safe for concurrent use.
type Lease struct {
	s    *Store
	id   string
	mu   sync.Mutex
	lock *os.File // nil: detached
	done bool
}

// leaseRecord is the metadata of a lease's container record.
type leaseRecord struct {
	Creator string      `json:"creator"`
	Terms   *leaseTerms `json:"kimg-lease"`
}

type leaseTerms struct {
	Owner    string    `json:"owner,omitempty"`
	Purpose  string    `json:"purpose,omitempty"`
	Expires  time.Time `json:"expires"`
	Detached bool      `json:"detached,omitempty"`
}

func (t leaseTerms) metadata() (string, error) {
	data, err := json.Marshal(leaseRecord{Creator: ToolKimg, Terms: &t})
	return string(data), err
}

// termsOf returns the terms of a lease, nil when the record is a container.
func termsOf(rec *storage.Container) *leaseTerms {
	var r leaseRecord
	if !strings.Contains(rec.Metadata, `"kimg-lease"`) || json.Unmarshal([]byte(rec.Metadata), &r) != nil {
		return nil
	}
	return r.Terms
}

// expiry is when a lease is over whose time begins now.
func expiry(ttl time.Duration) (time.Time, error) {
	if ttl < 0 || ttl > maxLeaseTTL {
		return time.Time{}, kimg.Errorf(kimg.ErrInvalid, "lease", "%v is no time to hold an image", ttl)
	}
	if ttl == 0 {
		ttl = leaseTTL
	}
	return time.Now().Add(ttl).UTC().Truncate(time.Second), nil
}

// Lease takes a lease. It is durable, or not there at all. The caller calls Release, unless the lease is detached.
func (s *Store) Lease(ctx context.Context, o LeaseOptions) (*Lease, error) {
	if len(o.Owner) > maxLeaseTag || len(o.Purpose) > maxLeaseTag {
		return nil, kimg.Errorf(kimg.ErrLimit, "lease", "owner and purpose have at most %d bytes", maxLeaseTag)
	}
	expires, err := expiry(o.TTL)
	if err != nil {
		return nil, err
	}
	img, _, err := s.resolve(ctx, o.Image)
	if err != nil {
		return nil, err
	}
	metadata, err := leaseTerms{Owner: o.Owner, Purpose: o.Purpose, Expires: expires, Detached: o.Detached}.metadata()
	if err != nil {
		return nil, err
	}
	l := &Lease{s: s, id: newID()}
	rw := newID()
	err = s.Change(ctx, "lease", func(_ context.Context, tx *Tx) error {
		tx.steps = append(tx.steps, step{
			what:   "lease " + l.id,
			intent: func() (*intentStep, error) { return &intentStep{Create: l.id, RW: rw}, nil },
			do: func(context.Context) error {
				tx.undo.Add(func(ctx context.Context) error { return s.unmake(ctx, l.id, rw) })
				_, err := s.st.CreateContainer(l.id, []string{leasePrefix + l.id[:12]}, img.ID, rw, metadata, &storage.ContainerOptions{
					IDMappingOptions: types.IDMappingOptions{HostUIDMapping: true, HostGIDMapping: true},
				})
				if err == nil {
					err = failpoint.Here("container.new.record")
				}
				if err == nil && !o.Detached {
					err = l.hold()
				}
				return err
			},
		})
		return nil
	})
	if err != nil {
		l.drop()
		return nil, err
	}
	return l, nil
}

// hold takes the lock that says that the holder lives.
func (l *Lease) hold() error {
	dir, err := l.s.st.ContainerDirectory(l.id) // it makes the directory
	if err != nil {
		return err
	}
	l.lock, err = makeLocked(filepath.Join(dir, leaseLock))
	return err
}

func (l *Lease) drop() {
	if l.lock != nil {
		l.lock.Close()
		l.lock = nil
	}
}

// ID returns the lease's ID.
func (l *Lease) ID() string { return l.id }

// Renew lets the lease last for ttl from now, 0 meaning one hour, also when its time is over and nobody has removed it. When
// somebody has (podman rmi -f and prune --external do), it is lost: class notfound, and the image may be gone.
func (l *Lease) Renew(ctx context.Context, ttl time.Duration) error {
	expires, err := expiry(ttl)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.s.withLease(l.id, func(terms *leaseTerms) error {
		if terms == nil || l.done {
			return kimg.Errorf(kimg.ErrNotFound, "lease "+l.id, "was removed; its image may be gone too")
		}
		terms.Expires = expires
		metadata, err := terms.metadata()
		if err != nil {
			return err
		}
		return l.s.Change(ctx, "renew", func(_ context.Context, tx *Tx) error {
			tx.Record("lease "+l.id, func(context.Context) error { return l.s.st.SetMetadata(l.id, metadata) })
			return nil
		})
	})
}

// Release gives the lease back, also when ctx is cancelled. More calls, and one that somebody else has removed, are fine.
// After a failure the lease counts as dead, or, if it is detached, ends by its time.
func (l *Lease) Release(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return nil
	}
	l.done = true
	defer l.drop() // last: until then nobody else collects it
	return l.s.withLease(l.id, func(terms *leaseTerms) error {
		if terms == nil {
			return nil
		}
		return l.s.endLease(ctx, l.id)
	})
}

// withLease calls fn with what the lease's terms are now, nil when it is gone, while nobody else changes or collects it.
func (s *Store) withLease(id string, fn func(*leaseTerms) error) error {
	dir, err := s.lockContainer(id)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, storage.ErrContainerUnknown) {
		return fn(nil)
	}
	if err != nil {
		return wrap("lease "+id, err)
	}
	defer dir.Close()
	rec, err := s.st.Container(id)
	if errors.Is(err, storage.ErrContainerUnknown) {
		return fn(nil)
	}
	if err != nil {
		return wrap("lease "+id, err)
	}
	return fn(termsOf(rec))
}

func (s *Store) endLease(ctx context.Context, id string) error {
	return s.Change(context.WithoutCancel(ctx), "release", func(_ context.Context, tx *Tx) error {
		tx.RemoveContainer(id)
		return nil
	})
}
