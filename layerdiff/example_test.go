package layerdiff_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/kimg/kimg/layerdiff"
	"github.com/kimg/kimg/layerdiff/view"
)

// Two directories are compared, and the difference is a layer. Of a container's overlay, store.Container.Stack gives the
// directories and the id maps.
func Example() {
	dir, err := os.MkdirTemp("", "kimg-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	before, after := filepath.Join(dir, "before"), filepath.Join(dir, "after")
	for path, text := range map[string]string{"before/gone": "", "before/etc/motd": "hi", "after/etc/motd": "hello", "after/new": ""} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			fmt.Println(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			fmt.Println(err)
		}
	}

	ctx := context.Background()
	stack := view.Stack{Upper: after, Lowers: []string{before}, Plain: true}
	for change, err := range layerdiff.Changes(ctx, stack, layerdiff.Options{}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(change.Kind, change.Path)
	}
	blob, err := layerdiff.Write(ctx, io.Discard, stack, layerdiff.Options{})
	fmt.Println(blob.Entries, "members, of", len(blob.UIDs), "owner", err)
	// Output:
	// C /etc
	// C /etc/motd
	// D /gone
	// A /new
	// 4 members, of 1 owner <nil>
}
