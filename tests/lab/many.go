package lab

import (
	"fmt"
	"strconv"

	"github.com/containers/storage"
)

// many is a helper: it records N more images in a store, all with the content of the first.
func many(root string, args []string) (err error) {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	st, err := storage.GetStore(storage.StoreOptions{GraphRoot: root, RunRoot: args[0], GraphDriverName: "overlay"})
	if err != nil {
		return err
	}
	defer st.Free()
	images, err := st.Images()
	if err != nil || len(images) == 0 {
		return fmt.Errorf("no image to repeat: %w", err)
	}
	first := images[0]
	o := storage.ImageOptions{CreationDate: first.Created, Digest: first.Digest, Metadata: first.Metadata}
	for _, key := range first.BigDataNames {
		data, err := st.ImageBigData(first.ID, key)
		if err != nil {
			return err
		}
		o.BigData = append(o.BigData, storage.ImageBigDataOption{Key: key, Data: data, Digest: first.BigDataDigests[key]})
	}
	for i := range n {
		if _, err := st.CreateImage("", []string{fmt.Sprintf("localhost/many:%d", i)}, first.TopLayer, "", &o); err != nil {
			return err
		}
	}
	return nil
}
