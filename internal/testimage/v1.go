package testimage

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"
)

// V1 is a Docker schema 1 image made from a seed.
type V1 struct {
	Manifest []byte
	Payload  []byte // what Manifest is without its signatures; its digest is the image's
	Signed   bool
	Blobs    map[string][]byte // digest -> bytes; that of empty entries included
	Layers   []ImageLayer      // of the entries that have one, base first
	History  []V1Entry         // base first
}

// V1Entry is one entry of a schema 1 history, with its blob.
type V1Entry struct {
	Blob  string         // digest
	Empty bool           // flagged throwaway
	JSON  map[string]any // the v1Compatibility text
}

// V1Options say how a [V1] is made. The zero value is an unsigned image of one gzip layer.
type V1Options struct {
	Seed          uint64
	Base          []ImageLayer // shared layers below the image's own
	Layers        int          // of its own; 0: 1, unless there is a Base
	Empty         int          // entries flagged throwaway, among the others as the seed decides
	Compression   []string     // of its own layers in turn: gzip (the default), plain, bzip2, xz
	LayerBytes    int          // about this much content in each of its own layers; 0: a few files
	Signed        bool
	DockerVersion string // "": 18.09.7; "-": absent
	Old           bool   // as before Docker 1.10: no flags, a Size and a full configuration in every entry
	Name, Tag     string // "": library/kimg and latest
	// Change edits the history before it is written, base first. The last entry holds the configuration.
	Change func(history []V1Entry) []V1Entry
}

// NewV1 makes an image.
func NewV1(o V1Options) V1 {
	r := rand.New(rand.NewPCG(o.Seed, 0x7631))
	img := V1{Signed: o.Signed, Layers: slices.Clone(o.Base), Blobs: map[string][]byte{}}
	own := o.Layers
	if own == 0 && len(o.Base) == 0 {
		own = 1
	}
	for i := range own {
		c := "gzip"
		if len(o.Compression) > 0 {
			c = o.Compression[i%len(o.Compression)]
		}
		img.Layers = append(img.Layers, NewLayer(r.Uint64(), c, o.LayerBytes))
	}
	empty := make([]bool, len(img.Layers)+o.Empty)
	for _, i := range r.Perm(len(empty))[:o.Empty] {
		empty[i] = true
	}
	img.History = entries(o, img.Layers, empty)
	if o.Change != nil {
		img.History = o.Change(img.History)
	}
	for _, l := range img.Layers {
		img.Blobs[l.Digest] = l.Blob
	}
	if o.Empty > 0 {
		img.Blobs[Digest(emptyBlob)] = emptyBlob
	}
	img.write(o)
	return img
}

// entries makes the history.
func entries(o V1Options, layers []ImageLayer, empty []bool) []V1Entry {
	var all []V1Entry
	parent := ""
	for i, none := range empty {
		id := Digest(fmt.Appendf(nil, "entry %d of %d on %s", i, o.Seed, parent))[7:]
		e := V1Entry{Blob: Digest(emptyBlob), Empty: none && !o.Old}
		size := 0
		if !none {
			e.Blob, size = layers[0].Digest, len(layers[0].Tar)
			layers = layers[1:]
		}
		e.JSON = map[string]any{
			"id": id, "created": fmt.Sprintf("2016-03-%02dT10:20:%02d.%d5Z", 1+i%28, i%60, 1000+i),
			"container_config": map[string]any{"Cmd": []string{"/bin/sh", "-c", fmt.Sprintf("#(nop) <step> & %d", i)}},
		}
		if i == len(empty)-1 || o.Old {
			maps.Copy(e.JSON, V1Config(o.Seed))
			e.JSON["container_config"] = V1Config(o.Seed)["config"]
			switch o.DockerVersion {
			case "-":
			case "":
				e.JSON["docker_version"] = "18.09.7"
			default:
				e.JSON["docker_version"] = o.DockerVersion
			}
		}
		if i%3 == 1 {
			e.JSON["author"], e.JSON["comment"] = fmt.Sprintf("Author %d <a@example.org>", i), "step \u2028 é"
		}
		if parent != "" {
			e.JSON["parent"] = parent
		}
		if e.Empty {
			e.JSON["throwaway"] = true
		}
		if o.Old {
			e.JSON["Size"] = size
		}
		all = append(all, e)
		parent = id
	}
	return all
}

// V1Config is a configuration that says something with every member Docker has had, and with one it has not.
func V1Config(seed uint64) map[string]any {
	return map[string]any{
		"architecture": "amd64", "os": "linux", "author": "Someone", "comment": "made from a seed",
		"container": Digest([]byte("container"))[7:],
		"x-unknown": map[string]any{"kept": []any{1, "two", nil}, "large": json.Number("123456789012345678901234567890")},
		"config": map[string]any{
			"User": "1000:50", "Env": []string{"PATH=/usr/bin:/bin", fmt.Sprintf("SEED=%d", seed)},
			"Entrypoint": []string{"/bin/file0"}, "Cmd": []string{"run", "<&>"}, "WorkingDir": "/srv",
			"ExposedPorts": map[string]any{"80/tcp": map[string]any{}}, "Volumes": map[string]any{"/data": map[string]any{}},
			"Labels": map[string]any{"org.example.seed": fmt.Sprint(seed), "empty": ""}, "StopSignal": "SIGQUIT",
			"ArgsEscaped": true, "OnBuild": []string{"RUN true", "COPY . /src"}, "Shell": []string{"/bin/bash", "-o", "pipefail", "-c"},
			"StopTimeout": 0, "Healthcheck": map[string]any{
				"Test": []string{"CMD-SHELL", "true || exit 1"}, "Interval": int64(30e9), "Timeout": int64(5e9),
				"StartPeriod": int64(1e9), "StartInterval": int64(2e9), "Retries": 3,
			},
			"Hostname": "b0a4bc0cafe0", "Domainname": "example.org", "AttachStdin": true, "AttachStdout": true,
			"AttachStderr": true, "Tty": true, "OpenStdin": true, "StdinOnce": true, "Image": "sha256:" + fmt.Sprintf("%064d", seed),
			"NetworkDisabled": true, "MacAddress": "02:42:ac:11:00:02", "Memory": 1 << 40, "MemorySwap": -1, "CpuShares": 512,
			"Cpuset": "0,1", "PortSpecs": []string{"8080"}, "SecurityOpt": []string{"label:disable"}, "VolumeDriver": "local",
			"PublishService": "svc", "X-Unknown": "kept as well",
		},
	}
}

// write builds the manifest, whose lists begin with the newest entry.
func (img *V1) write(o V1Options) {
	type blob struct {
		BlobSum string `json:"blobSum"`
	}
	type entry struct {
		V1Compatibility string `json:"v1Compatibility"`
	}
	m := struct {
		SchemaVersion int     `json:"schemaVersion"`
		Name          string  `json:"name"`
		Tag           string  `json:"tag"`
		Architecture  string  `json:"architecture"`
		FSLayers      []blob  `json:"fsLayers"`
		History       []entry `json:"history"`
	}{SchemaVersion: 1, Name: o.Name, Tag: o.Tag, Architecture: "amd64"}
	if m.Name == "" {
		m.Name = "library/kimg"
	}
	if m.Tag == "" {
		m.Tag = "latest"
	}
	for _, e := range slices.Backward(img.History) {
		m.FSLayers = append(m.FSLayers, blob{e.Blob})
		m.History = append(m.History, entry{string(toJSON(e.JSON))})
	}
	img.Payload, _ = json.MarshalIndent(m, "", "   ") // strings and numbers only
	img.Manifest = img.Payload
	if o.Signed {
		img.Manifest = SignV1(img.Payload, Key(o.Seed))
	}
}

// DiffIDs lists the diff IDs of the layers, base first.
func (img V1) DiffIDs() (ids []string) {
	for _, l := range img.Layers {
		ids = append(ids, l.DiffID)
	}
	return ids
}

// WriteDir writes the image in the form of the dir: transport. What is there already of the same name is replaced.
func (img V1) WriteDir(dir string) error {
	files := map[string][]byte{
		filepath.Join(dir, "version"):       []byte("Directory Transport Version: 1.1\n"),
		filepath.Join(dir, "manifest.json"): img.Manifest,
	}
	for d, data := range img.Blobs {
		files[filepath.Join(dir, d[7:])] = data
	}
	return writeAll(dir, files)
}

// NewLayer makes a layer from a seed: gzip, bzip2 or xz, else plain. Those of the last two forms are all alike, whatever the seed
// and size, because nothing here can write them. size is about how much content it has; 0 is a few small files.
func NewLayer(seed uint64, compression string, size int) (l ImageLayer) {
	switch compression {
	case "bzip2":
		l.Tar, l.Blob = rareTar(), bzip2Blob
	case "xz":
		l.Tar, l.Blob = rareTar(), xzBlob
	default:
		r := rand.New(rand.NewPCG(seed, 1))
		if l.Tar = randomLayer(r, int(seed%1000)); size > 0 {
			l.Tar = largeLayer(r, size)
		}
		if l.Blob = l.Tar; compression == "gzip" {
			l.Blob = compress(l.Tar)
		}
	}
	l.DiffID, l.Digest = Digest(l.Tar), Digest(l.Blob)
	return l
}

// largeLayer is a tar of files of up to 1 MiB that compress to about half.
func largeLayer(r *rand.Rand, size int) []byte {
	const fileSize, chunk, window = 1 << 20, 32, 16 << 10
	var files []entry
	for i := 0; size > 0; i++ {
		data := make([]byte, min(size, fileSize))
		for at := 0; at < len(data); at += chunk {
			piece := data[at:min(at+chunk, len(data))]
			if back := min(at, window); back >= chunk && r.IntN(2) == 0 {
				copy(piece, data[at-back+r.IntN(back-chunk+1):])
				continue
			}
			for j := range piece {
				piece[j] = byte(r.Uint32())
			}
		}
		name := fmt.Sprintf("srv/%016x/%d", r.Uint64(), i)
		files = append(files, entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data)), ModTime: time.Unix(1700000000, 0)}, string(data)})
		size -= len(data)
	}
	return pack(files...)
}
