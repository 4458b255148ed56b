package testimage

import (
	"archive/tar"
	"encoding/base64"
	"time"
)

// rareTar is what bzip2Blob and xzBlob hold.
func rareTar() []byte {
	then := time.Unix(1700000000, 0)
	return pack(
		entry{tar.Header{Name: "rare/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: then}, ""},
		entry{tar.Header{Name: "rare/file", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 1000, Gid: 50, Size: 5, ModTime: then}, "rare\n"},
	)
}

// What no writer of the standard library gives: the empty layer as Docker compressed it, whose digest a3ed95ca… is known
// everywhere, and rareTar by bzip2 -9 and by xz -9 --check=crc32.
var (
	emptyBlob = decode64("H4sIAAAJbogA/2IYBaNgFIxYAAgAAP//Lq+17wAEAAA=")
	bzip2Blob = decode64("QlpoOTFBWSZTWXm+otAAAGlbkOmQQAD3hACIYyQeAAQAAAggAJIJRJkaaNAaBo9QSJJiamJkbU0aBiXtGlC35FQS1pyOhV6uS0wgqLFgQgygZB1c9oQplpEh" +
		"I3vNXGjBj3uOG5D2fQiB5IwhSOItz6SeXutFE9N0qqc+VqNFXIwwxAD8XckU4UJB5vqLQA==")
	xzBlob = decode64("/Td6WFoAAAFpIt42AgAhARwAAAAQz1jM4An/AGddADkYSqrtrrXlMP3/H+akfY67R34e7GRSeJ1BQYXUZVcOozxE00f5BcqEG786CHbmGf1vDqncf2qel8gS" +
		"FFuu5TjC/X5egceik+X6NHkbJHM+9if9xVAgau/I5So7/FLyHuRV7We9MvMAAFRsqO0AAX+AFAAAAJMbvFc+MA2LAgAAAAABWVo=")
)

func decode64(text string) []byte {
	b, _ := base64.StdEncoding.DecodeString(text) // what is wrong in a constant, the readers of it find
	return b
}
