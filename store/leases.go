package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containers/storage"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/safeopen"
)

// LeaseState says whether a lease still holds its image.
type LeaseState string

// The states. A lease in any but the first is removed by whoever collects garbage.
const (
	LeaseActive  LeaseState = "active"
	LeaseExpired LeaseState = "expired" // its time is over
	LeaseDead    LeaseState = "dead"    // the process that held it is gone
)

// LeaseInfo is what there is to know about a lease.
type LeaseInfo struct {
	ID       string
	Name     string // of its container record, which is what other tools show
	ImageID  string
	Owner    string
	Purpose  string
	Created  time.Time
	Expires  time.Time
	Detached bool
	State    LeaseState
}

// Leases lists every lease of the store, those that are over too.
func (s *Store) Leases(ctx context.Context) ([]LeaseInfo, error) {
	if err := check(ctx); err != nil {
		return nil, err
	}
	records, err := s.st.Containers()
	if err != nil {
		return nil, wrap("leases", err)
	}
	var leases []LeaseInfo
	for i := range records {
		rec := &records[i]
		t := termsOf(rec)
		if t == nil {
			continue
		}
		state, err := s.leaseState(rec, t)
		if err != nil {
			return nil, wrap("lease "+rec.ID, err)
		}
		leases = append(leases, LeaseInfo{
			ID: rec.ID, Name: nameOrID(rec.Names, rec.ID), ImageID: rec.ImageID, Owner: t.Owner, Purpose: t.Purpose,
			Created: rec.Created, Expires: t.Expires, Detached: t.Detached, State: state,
		})
	}
	return leases, nil
}

func (s *Store) leaseState(rec *storage.Container, t *leaseTerms) (LeaseState, error) {
	switch {
	case !time.Now().Before(t.Expires):
		return LeaseExpired, nil
	case t.Detached:
		return LeaseActive, nil
	}
	f, err := safeopen.Open(filepath.Join(s.containerDir(rec.ID), leaseLock))
	if errors.Is(err, os.ErrNotExist) {
		if time.Since(rec.Created) < leaseStart {
			return LeaseActive, nil // it is being made
		}
		return LeaseDead, nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	alive, err := held(f)
	if err == nil && !alive {
		return LeaseDead, nil
	}
	return LeaseActive, err
}

// RemoveLease removes the lease that ref means, by its ID, its name or the beginning of its ID, and returns its ID. One that a
// living process holds is class busy unless force is given.
func (s *Store) RemoveLease(ctx context.Context, ref string, force bool) (string, error) {
	all, err := s.Leases(ctx)
	if err != nil {
		return "", err
	}
	var found []LeaseInfo
	for _, l := range all {
		if l.ID == ref || l.Name == ref {
			found = []LeaseInfo{l}
			break
		}
		if isHex(ref) && strings.HasPrefix(l.ID, ref) {
			found = append(found, l)
		}
	}
	switch {
	case len(found) == 0:
		return "", kimg.Errorf(kimg.ErrNotFound, kimg.Quote(ref), "no such lease in this store")
	case len(found) > 1:
		return "", kimg.Errorf(kimg.ErrInvalid, kimg.Quote(ref), "means %d leases", len(found))
	case found[0].State == LeaseActive && !found[0].Detached && !force:
		return "", kimg.Errorf(kimg.ErrBusy, found[0].Name, "a running program holds it; --force removes it all the same")
	}
	return found[0].ID, s.withLease(found[0].ID, func(t *leaseTerms) error {
		if t == nil {
			return nil
		}
		return s.endLease(ctx, found[0].ID)
	})
}

// collectLease removes a lease if it is over, still, and tells whether it was.
func (s *Store) collectLease(ctx context.Context, id string) (gone bool, err error) {
	err = s.withLease(id, func(t *leaseTerms) error {
		rec, err := s.st.Container(id)
		if t == nil || err != nil {
			return nil // somebody was faster
		}
		if state, err := s.leaseState(rec, t); err != nil || state == LeaseActive {
			return err
		}
		gone = true
		return s.endLease(ctx, id)
	})
	return gone, err
}

// collectLeases removes the leases of an image that are over.
func (s *Store) collectLeases(ctx context.Context, imageID string) error {
	all, err := s.Leases(ctx)
	for _, l := range all {
		if err == nil && l.ImageID == imageID && l.State != LeaseActive {
			_, err = s.collectLease(ctx, l.ID)
		}
	}
	return err
}
