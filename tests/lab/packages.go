package lab

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// packages is what installing a compiler leaves: 6,000 entries, 550 MB, a few large programs and libraries that hold half
// of the bytes, thousands of headers and scripts, and links. gzip makes 0.43 of it.
func packages(c *changer) {
	p := packer{c: c, words: vocabulary(c.r)}
	c.dir("usr/bin", 0o755)
	c.dir("usr/share", 0o755)
	for i := range 12 {
		p.file(fmt.Sprintf("usr/libexec/cc/12/program%d", i), 14<<20, 26<<20, 0o755)
	}
	for i := range 60 {
		p.file(fmt.Sprintf("usr/lib/x86_64-linux-gnu/lib%d.so.1.%d", i, i), 1<<20, 5<<20, 0o644)
		c.symlink(fmt.Sprintf("lib%d.so.1.%d", i, i), fmt.Sprintf("usr/lib/x86_64-linux-gnu/lib%d.so", i))
	}
	for i := range 400 {
		p.file(fmt.Sprintf("usr/lib/python3/m%d/module%d.bin", i%40, i), 50<<10, 350<<10, 0o644)
		c.symlink(fmt.Sprintf("../lib/python3/m%d/module%d.bin", i%40, i), fmt.Sprintf("usr/bin/tool%d", i))
	}
	for i := range 4630 {
		p.file(fmt.Sprintf("usr/include/d%d/e%d/h%d.h", i%25, i%375, i), 1<<10, 20<<10, 0o644)
	}
	for i := range 24 {
		c.link(fmt.Sprintf("usr/include/d%d/e%d/h%d.h", i%25, i%375, i), fmt.Sprintf("usr/share/same%d", i))
	}
}

// system is a root file system of 170 MB to build on: 3,000 files.
func system(c *changer) {
	p := packer{c: c, words: vocabulary(c.r)}
	for i := range 40 {
		p.file(fmt.Sprintf("usr/lib/lib%d.so", i), 1<<20, 3<<20, 0o755)
	}
	for i := range 2960 {
		p.file(fmt.Sprintf("usr/share/d%d/f%d", i%100, i), 4<<10, 56<<10, 0o644)
	}
}

// crowd is 200,000 files of 100 bytes.
func crowd(c *changer) {
	for d := range 1000 {
		dir := filepath.Join("srv/crowd", fmt.Sprintf("%03d", d))
		for i := range 200 { // not through c.file, which would remember every path
			if c.err == nil && i == 0 {
				c.dir(dir, 0o755)
			}
			if c.err == nil {
				c.err = os.WriteFile(filepath.Join(c.root, dir, fmt.Sprintf("a-file-of-%03d", i)), []byte(c.text(100)), 0o644)
			}
		}
	}
}

// packer writes files that compress as programs and texts do.
type packer struct {
	c     *changer
	words []string
}

func vocabulary(r *rand.Rand) []string {
	words := make([]string, 4096)
	for i := range words {
		b := make([]byte, 2+r.IntN(9))
		for j := range b {
			b[j] = "etaoinshrdlucmfwypvbgkqjxz_();{}"[min(r.IntN(32), r.IntN(32))]
		}
		words[i] = string(b) + " "
	}
	return words
}

// file writes a file of between least and most bytes.
func (p packer) file(name string, least, most int, mode uint32) {
	p.c.file(name, string(prose(p.c.r, p.words, least+p.c.r.IntN(most-least))), mode)
}

// prose is words, with machine code's noise between them when there are many.
func prose(r *rand.Rand, words []string, size int) []byte {
	b := make([]byte, 0, size+64)
	for len(b) < size {
		if size > 32<<10 && r.IntN(16) < 5 {
			b = binary.LittleEndian.AppendUint64(b, r.Uint64()) // addresses and constants
			continue
		}
		n := r.Uint64()
		b = append(b, words[min(n&4095, n>>12&4095, n>>24&4095)]...)
		b = append(b, words[n>>40&4095&(n>>52)]...)
	}
	return b[:size]
}
