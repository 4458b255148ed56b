package copydata

import (
	"bytes"
	"sync"

	"github.com/kimg/kimg"
)

// Memory is a [Directory] in memory, for tests and examples. The zero value is empty and ready. It keeps every promise
// of the interface but durability, and is safe for concurrent use.
type Memory struct {
	mu    sync.Mutex
	files map[[2]string][]byte // by container id and file name
}

// Read implements [Directory].
func (m *Memory) Read(id, file string, max int64) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.files[[2]string{id, file}]
	switch {
	case !ok:
		return nil, kimg.Errorf(kimg.ErrNotFound, file, "no such file")
	case int64(len(data)) > max:
		return nil, kimg.Errorf(kimg.ErrLimit, file, "%d bytes, the limit is %d", len(data), max)
	}
	return bytes.Clone(data), nil
}

// Replace implements [Directory].
func (m *Memory) Replace(id, file string, generation uint64, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := [2]string{id, file}
	var now uint64
	if current, ok := m.files[key]; ok {
		var err error
		if now, err = Generation(current); err != nil {
			return err
		}
	}
	if now != generation {
		return kimg.Errorf(kimg.ErrBusy, file, "changed meanwhile: generation %d, not %d", now, generation)
	}
	if m.files == nil {
		m.files = map[[2]string][]byte{}
	}
	m.files[key] = bytes.Clone(data)
	return nil
}

// Put sets a file to any content, as a careless or hostile program would. Nil removes it.
func (m *Memory) Put(id, file string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.files == nil {
		m.files = map[[2]string][]byte{}
	}
	if m.files[[2]string{id, file}] = bytes.Clone(data); data == nil {
		delete(m.files, [2]string{id, file})
	}
}
