package layout

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/safeopen"
	"github.com/kimg/kimg/internal/staging"
	"github.com/kimg/kimg/internal/strict"
)

// CreateDir prepares to write a dir: image to path, which may be absent, empty or hold another dir: image. That one is
// replaced by Commit: from one instant to the next path holds the new image, and the old one's files are removed.
// Anything else at path is class exists. The caller closes the destination.
func CreateDir(ctx context.Context, path string, o Options) (*Destination, error) {
	d, err := create(ctx, path, dirForm{}, o)
	return d, kimg.Wrap(path, err)
}

// PutSignatures stages what lies beside the manifest, or beside that of an instance of the index unless that is empty: files as
// [DirSource.Signatures] returns them. Class unsupported for a layout, which has no place for them.
func (d *Destination) PutSignatures(_ context.Context, instance digest.Digest, files [][]byte) error {
	if _, ok := d.form.(dirForm); !ok {
		return kimg.Errorf(kimg.ErrUnsupported, d.path, "a layout has no place for signatures")
	}
	if instance != "" {
		if err := strict.Digest(instance.String()); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for n, data := range files {
		d.beside[signatureFile(instance, n+1)] = data
	}
	return nil
}

type dirForm struct{}

func (dirForm) blob(d digest.Digest, instance bool) string {
	if instance {
		return d.Encoded() + "." + dirManifest
	}
	return d.Encoded()
}

func (dirForm) document() string { return dirManifest }

func (dirForm) check(root *os.File) error {
	version, err := safeopen.ReadIn(root, dirVersion, 1024)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !strings.HasPrefix(string(version), versionStart) {
		return kimg.Errorf(kimg.ErrExists, "", "the directory is not empty and not a dir: image")
	}
	return nil
}

// dirFile matches what containers/image calls the files of a dir: image, besides version. Compiled when it is first
// needed, as every start of the program would pay for it.
var dirFile = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^((` + dirHex + `\.)?manifest\.json|(` + dirHex + `\.)?signature-[0-9]+|` + dirHex + `)$`)
})

const dirHex = `([0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128})`

func (f dirForm) publish(ctx context.Context, d *Destination, p *staging.Publisher, manifest []byte, _ string) error {
	if err := strict.Size("manifest", int64(len(manifest)), strict.MaxDocument); err != nil {
		return err
	}
	before, err := os.ReadDir(d.path)
	if err != nil {
		return err
	}
	// First: a killed process must leave what the next one knows as an image.
	if err := p.Write(filepath.Join(d.path, dirVersion), []byte(versionText)); err != nil {
		return err
	}
	if err := d.placeBlobs(ctx, p); err != nil {
		return err
	}
	if err := p.SyncDirs(d.path); err != nil {
		return err
	}
	keep := map[string]bool{dirManifest: true}
	for _, name := range slices.Sorted(maps.Keys(d.beside)) {
		if err := p.Write(filepath.Join(d.path, name), d.beside[name]); err != nil {
			return err
		}
		keep[name] = true
	}
	if err := p.Write(filepath.Join(d.path, dirManifest), manifest); err != nil {
		return err
	}
	for blob := range d.area.Blobs() {
		keep[f.blob(blob, d.instances[blob])] = true
	}
	for blob := range d.reused {
		keep[f.blob(blob, false)] = true
	}
	for _, e := range before {
		if name := e.Name(); !keep[name] && e.Type().IsRegular() && dirFile().MatchString(name) {
			if err := p.Away(filepath.Join(d.path, name)); err != nil {
				return err
			}
		}
	}
	return p.SyncDirs(d.path)
}
