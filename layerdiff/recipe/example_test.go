package recipe_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"

	"github.com/kimg/kimg/layerdiff/recipe"
)

// A layer that docker made is made again from its tar.
func ExampleFind() {
	tar := []byte("the tar of a layer")
	var blob, again bytes.Buffer
	z := gzip.NewWriter(&blob)
	z.Write(tar)
	z.Close()

	r, err := recipe.Find(context.Background(), bytes.NewReader(blob.Bytes()), int64(blob.Len()), 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	w, err := r.Writer(&again, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	w.Write(tar)
	w.Close()
	fmt.Println(r.Encoder, r.Level, bytes.Equal(again.Bytes(), blob.Bytes()))
	// Output: go 6 true
}
