package layerdiff

// IDRange maps Size ids from Container in the container to Host outside it.
type IDRange struct{ Container, Host, Size uint32 }

// IDMap is a container's id map. An empty map is the identity.
type IDMap []IDRange

// ToContainer returns the id the container sees for an id of the host; false when the map has none.
func (m IDMap) ToContainer(host uint32) (uint32, bool) {
	if len(m) == 0 {
		return host, host != noID
	}
	for _, r := range m {
		if d := host - r.Host; host >= r.Host && d < r.Size {
			return r.Container + d, true
		}
	}
	return 0, false
}

// ToHost returns the id of the host for an id the container sees; false when the map has none.
func (m IDMap) ToHost(container uint32) (uint32, bool) {
	if len(m) == 0 {
		return container, container != noID
	}
	for _, r := range m {
		if d := container - r.Container; container >= r.Container && d < r.Size {
			return r.Host + d, true
		}
	}
	return 0, false
}

// Identity reports whether the map changes no id that it maps.
func (m IDMap) Identity() bool {
	for _, r := range m {
		if r.Container != r.Host {
			return false
		}
	}
	return true
}

// noID is the id the kernel shows for one that has no place in the caller's namespace.
const noID = ^uint32(0)
