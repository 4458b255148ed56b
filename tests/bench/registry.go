package main

import (
	"os"
	"path/filepath"

	"github.com/kimg/kimg/tests/lab"
)

// remote is an image name in a registry of the run's own, which holds nothing yet and ends with stop.
func (s *site) remote(id string) (name, data string, stop func(), err error) {
	data = filepath.Join(s.dir, "registry-"+id)
	s.later("rm", "-rf", data)
	if err := os.Mkdir(data, 0o755); err != nil {
		return "", "", nil, err
	}
	addr, stop, err := lab.ServeRegistry(data)
	return "docker://" + addr + "/app:1", data, stop, err
}

// sent is the image on its way to an empty registry, and with twice to one that has it then.
func sent(name string, twice bool, command func(s *site, to string) []string) contender {
	return contender{name: name, do: func(s *site, id string) (u usage, err error) {
		to, data, stop, err := s.remote(id)
		if err != nil {
			return u, err
		}
		defer stop()
		return s.written(data, twice, command(s, to))
	}}
}

func kimgPush(name, compression string, twice bool) contender {
	return sent(name, twice, func(s *site, to string) []string {
		return s.fast("push", "-q", "--tls-verify=false", "--compression", compression, "localhost/whole", to)
	})
}

// push is the peer's; it is called after what is compared.
func (p peer) push(compression string) contender {
	return sent(compression+", "+p.name, false, func(s *site, to string) []string {
		return p.command(s, "push", "-q", "--tls-verify=false", "--compression-format", compression, "localhost/whole", to)
	})
}

// pulled is the layout's image on its way from a registry into an empty store.
func pulled(name string, command func(f *site, from string) []string) contender {
	return contender{name: name, do: func(s *site, id string) (u usage, err error) {
		from, _, stop, err := s.remote(id)
		if err != nil {
			return u, err
		}
		defer stop()
		if _, err := s.timed(s.tmp(), s.kimg, "copy", "-q", "--tls-verify=false", "oci:"+s.input+":1", from); err != nil {
			return u, err
		}
		if err := s.settle(); err != nil {
			return u, err
		}
		return s.timed(s.tmp(), command(s.fresh(id), from)...)
	}}
}

// registry are rows of images that go to a registry on the loopback interface and come from one.
func registry(peers []peer) []row {
	push := row{name: "push, installed packages, memory", change: "packages", image: true, rounds: 3,
		contenders: []contender{kimgPush("kimg gzip", "gzip", true), kimgPush("kimg zstd", "zstd", false), {name: "kimg gzip" + again}},
		bars: []bar{{"kimg gzip", "gzip, buildah", wallTime, 1, 0}, {"kimg gzip", "gzip, buildah", size, 0, 0}, {"kimg zstd", "zstd, buildah", wallTime, 0.6, 0},
			{"kimg zstd", "gzip, buildah", wallTime, 0, 0}, {"kimg zstd", "zstd, buildah", size, 0, 0}, {"kimg gzip again", "kimg gzip", wallTime, 0.1, 0}}}
	for _, p := range peers {
		push.contenders = append(push.contenders, p.push("gzip"), p.push("zstd"))
	}
	return []row{push, {name: "pull, 60 layers, memory", layers: "60 100 88000", rounds: 3,
		contenders: []contender{
			pulled("kimg", func(f *site, from string) []string { return f.fast("pull", "-q", "--tls-verify=false", from) }),
			pulled("skopeo", func(f *site, from string) []string { return f.skopeo("--src-tls-verify=false", from) }),
		},
		bars: []bar{{"kimg", "skopeo", wallTime, 0.5, 0}, {"kimg", "", peakSize, 100, 64}}}}
}
