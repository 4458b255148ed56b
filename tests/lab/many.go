package lab

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
)

// many is a helper: it records N more images in a store that nobody has open, all with the content of the first. Through the
// library, which writes the whole record for each image, a thousand take half a minute.
func many(root string, args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "overlay-images")
	file := filepath.Join(dir, "images.json")
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var all []map[string]any
	if err := json.Unmarshal(data, &all); err != nil || len(all) == 0 {
		return fmt.Errorf("no image to repeat: %w", err)
	}
	bigData := os.DirFS(filepath.Join(dir, fmt.Sprint(all[0]["id"])))
	for i := range n {
		id, names := fmt.Sprintf("%064x", i), []string{fmt.Sprintf("localhost/many:%d", i)}
		if err := os.CopyFS(filepath.Join(dir, id), bigData); err != nil {
			return err
		}
		image := maps.Clone(all[0])
		image["id"], image["names"], image["names-history"] = id, names, names
		all = append(all, image)
	}
	if data, err = json.Marshal(all); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o600)
}
