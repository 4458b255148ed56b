package commit

import (
	"context"
	"slices"

	"github.com/kimg/kimg/store"
)

// learn notes what was made of a layer, for it and for the equal layers of images.
func (m *maker) learn(ctx context.Context, layer string, b store.KnownBlob) error {
	equal, err := m.st.LayersWith(ctx, b.DiffID)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(equal, layer) {
		equal = append(equal, layer)
	}
	for _, id := range equal {
		// Before what is to be forgotten: of two with the same settings the first counts.
		m.lessons[id] = slices.Insert(m.lessons[id], 0, b)
	}
	return nil
}

// forget notes that what is remembered of a layer is wrong.
func (m *maker) forget(o *offer) {
	wrong := o.blob
	wrong.Digest = ""
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lessons[o.layer] = append(m.lessons[o.layer], wrong)
	m.forgotten++
}

// wrong tells whether something remembered was found wrong.
func (m *maker) wrong(layer string, b store.KnownBlob) bool {
	b.Digest = ""
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.lessons[layer], b)
}

// stale tells whether something was found wrong since it was asked last: another try would name it anew.
func (m *maker) stale() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.forgotten
	m.forgotten = 0
	return n > 0
}

// end writes down everything, when the image is at every place.
func (m *maker) end() {
	if m.later != nil {
		if err := m.later(); err != nil {
			m.o.Logger.WarnContext(m.ctx, "what an empty layer comes to is not remembered", "error", err)
		}
	}
	m.keep()
}

// keep writes down what was learnt. It only saves work later, so a failure is no failure of the commit.
func (m *maker) keep() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.lessons) == 0 || m.ctx.Err() != nil {
		return
	}
	err := m.st.RememberBlobs(m.ctx, m.lessons)
	if err == nil {
		clear(m.lessons)
	} else {
		m.o.Logger.WarnContext(m.ctx, "the compressed forms of layers are not remembered", "error", err)
	}
}
