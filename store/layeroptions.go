package store

import "github.com/containers/storage"

// options are those the layer is made with; its labels become flags, which other tools keep and ignore.
func (l *StagedLayer) options() *storage.LayerOptions {
	o := layerOptions()
	for key, value := range l.Labels {
		if o.Flags == nil {
			o.Flags = map[string]any{}
		}
		o.Flags[key] = value
	}
	return o
}

// layerOptions asks for container ids on disk. Without them a layer would inherit the id map of a mapped parent. The only
// place that sets id maps of layers.
func layerOptions() *storage.LayerOptions {
	var o storage.LayerOptions // field by field: the types differ between the two import paths (make podman-module)
	o.IDMappingOptions.HostUIDMapping, o.IDMappingOptions.HostGIDMapping = true, true
	return &o
}

// mountLabel returns the SELinux label the layer below is mounted with.
func (s *Store) mountLabel(parent string) string {
	if parent == "" {
		return ""
	}
	l, err := s.st.Layer(parent)
	if err != nil {
		return "" // applying fails with the better error
	}
	return l.MountLabel
}
