package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kimg/kimg/tests/lab"
)

// contender is one way to do the work of a row.
type contender struct {
	name string
	most int                                     // rounds at most; 0: all of them
	do   func(s *site, id string) (usage, error) // prepares and measures one run; id is its own
}

// again ends the name of a contender without do: the second time, right after the first, of the one with the rest of the name.
const again = " again"

// tmp is the environment that has everybody's temporary files in the place.
func (s *site) tmp() []string { return []string{"TMPDIR=" + s.dir} }

// commit is kimg commit into the store.
func commit(name string, flags ...string) contender {
	return contender{name: name, do: func(s *site, id string) (usage, error) {
		if err := s.container(id); err != nil {
			return usage{}, err
		}
		if slices.Contains(flags, "--rm") {
			s.trash = s.trash[:len(s.trash)-1] // it removes its container
		}
		s.later(s.command("rmi", "localhost/result-"+id)...)
		return s.timed(s.tmp(), s.fast(slices.Concat([]string{"commit", id, "localhost/result-" + id}, flags)...)...)
	}}
}

// push is kimg commit to a place outside the store, twice to the same place.
func push(name, transport string, twice bool, flags ...string) contender {
	return contender{name: name, do: func(s *site, id string) (u usage, err error) {
		if err := s.container(id); err != nil {
			return u, err
		}
		to, path := s.place(transport, id)
		command := s.fast(slices.Concat([]string{"commit", id, to}, flags)...)
		return s.written(path, twice, command)
	}}
}

// written runs what writes to a path, and with twice the same once more.
func (s *site) written(path string, twice bool, command []string) (u usage, err error) {
	if u, err = s.timed(s.tmp(), command...); err == nil {
		u.size, err = sizeOf(path)
	}
	if twice && err == nil {
		second, failed := s.written(path, false, command)
		u.again, err = &second, failed
	}
	return u, err
}

// many commits several containers side by side and lists the images of the store all the while, also by kimg.
func many(name string, n int) contender {
	return contender{name: name, do: func(s *site, id string) (usage, error) {
		var commands [][]string
		for i := range n {
			one := fmt.Sprintf("%s-%d", id, i)
			if err := s.container(one); err != nil {
				return usage{}, err
			}
			s.later(s.command("rmi", "localhost/result-"+one)...)
			commands = append(commands, s.fast("commit", one, "localhost/result-"+one))
		}
		return s.atOnce(commands)
	}}
}

func (s *site) atOnce(commands [][]string) (total usage, err error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	note := func(u usage, failed error) {
		mu.Lock()
		defer mu.Unlock()
		total.cpu, total.peak = total.cpu+u.cpu, max(total.peak, u.peak)
		if failed != nil {
			err = failed
		}
	}
	start, done := time.Now(), make(chan struct{})
	for _, c := range commands {
		wg.Go(func() { note(s.timed(s.tmp(), c...)) })
	}
	go func() { wg.Wait(); total.wall = time.Since(start); close(done) }()
	var listed []usage
	for {
		select {
		case <-done:
			total.beside = middle(wall(listed))
			return total, err
		case <-time.After(20 * time.Millisecond):
			u, failed := s.timed(nil, s.command("images")...)
			note(usage{cpu: u.cpu}, failed)
			listed = append(listed, u)
		}
	}
}

// starts are commands that do next to nothing.
func starts() []contender {
	return []contender{
		{name: "version", do: func(s *site, _ string) (usage, error) { return s.timed(nil, s.kimg, "version") }},
		{name: "images", do: func(s *site, _ string) (usage, error) { return s.timed(nil, s.command("images")...) }},
		{name: "inspect", do: func(s *site, _ string) (usage, error) { return s.timed(nil, s.command("inspect", "localhost/base")...) }},
		{name: "mount", do: func(s *site, id string) (usage, error) {
			if err := s.container(id); err != nil {
				return usage{}, err
			}
			s.later(s.command("umount", id)...)
			return s.timed(nil, s.command("mount", id)...)
		}},
		{name: "from", do: func(s *site, id string) (usage, error) {
			s.later(s.command("rm", id)...)
			return s.timed(nil, s.fast("from", "--name", id, "localhost/base")...)
		}},
	}
}

// pipes are what the machine's own tools can do: the floor reads a tree once, hashes it and writes it once; the other one
// writes nothing. A named pipe instead of a process substitution, because the hash has to be waited for.
const (
	floorScript = `set -euo pipefail
mkdir "$NEW"; mkfifo "$NEW.pipe"
openssl dgst -sha256 <"$NEW.pipe" >/dev/null & hash=$!
tar -C "$UPPER" --xattrs -cf - . | tee "$NEW.pipe" | tar --xattrs -xf - -C "$NEW"
wait $hash
if [ "$SYNC" = true ]; then sync -f "$NEW"; fi`
	hashScript = `set -euo pipefail
tar -C "$UPPER" --xattrs -cf - . | openssl dgst -sha256 >/dev/null`
)

func pipe(name, script string) contender {
	return contender{name: name, do: func(s *site, id string) (usage, error) {
		if err := s.container(id); err != nil {
			return usage{}, err
		}
		upper, err := s.upper(id)
		if err != nil {
			return usage{}, err
		}
		to := filepath.Join(s.dir, "floor-"+id)
		s.later(lab.Unshared("rm", "-rf", to, to+".pipe")...)
		return s.timed([]string{"UPPER=" + upper, "NEW=" + to, fmt.Sprintf("SYNC=%t", s.sync)}, lab.Unshared("bash", "-c", script)...)
	}}
}

// peer is a buildah of this machine.
type peer struct{ name, path string }

// findPeers finds buildah and buildah-* on PATH, and what the list names; none: nothing.
func findPeers(list string) (peers []peer, err error) {
	if list == "none" {
		return nil, nil
	}
	paths, err := output("sh", "-c", `IFS=:; for d in $PATH; do for b in "$d"/buildah "$d"/buildah-*; do if [ -x "$b" ]; then echo "$b"; fi; done; done`)
	if err != nil {
		return nil, err
	}
	for _, path := range append(strings.Fields(paths), strings.FieldsFunc(list, func(r rune) bool { return r == ',' })...) {
		if path, err = exec.LookPath(path); err != nil {
			return nil, err
		}
		version, err := output(path, "--version") // buildah version 1.28.2 (image-spec …)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		p := peer{"buildah " + strings.Fields(version + " ? ? ?")[2], path}
		if !slices.ContainsFunc(peers, func(q peer) bool { return q.name == p.name }) {
			peers = append(peers, p)
		}
	}
	return peers, nil
}

// words are the command and the flags of the store; the peer takes an option with a comma for two unless it is quoted.
func (p peer) words(s *site) []string {
	all := append([]string{p.path}, s.storeFlags()...)
	for i, word := range all {
		if strings.Contains(word, ",") {
			all[i] = `"` + word + `"`
		}
	}
	return all
}

func (p peer) command(s *site, args ...string) []string {
	return lab.Unshared(append(p.words(s), args...)...)
}

// container makes a container of the peer's own, with content as kimg's have.
func (p peer) container(s *site, id string) error {
	script := `set -e
"$@" from --pull-never --name "$ID" localhost/base >/dev/null
KIMG_ROOT=$("$@" mount "$ID")
` + fill + `
"$@" umount "$ID" >/dev/null`
	argv := lab.Unshared(append([]string{"sh", "-c", script, "-"}, p.words(s)...)...)
	s.later(p.command(s, "rm", id)...)
	if _, err := s.timed([]string{"TREE=" + s.tree, "ID=" + id}, argv...); err != nil {
		return err
	}
	return s.settle()
}

// commit is the peer's commit into the store, or to a place when there is a transport.
func (p peer) commit(transport string, flags ...string) contender {
	return contender{name: p.name, do: func(s *site, id string) (u usage, err error) {
		if err := p.container(s, id); err != nil {
			return u, err
		}
		command := func(to string) []string {
			return p.command(s, slices.Concat([]string{"commit", "-q"}, flags, []string{id, to})...)
		}
		if transport != "" {
			to, path := s.place(transport, id)
			return s.written(path, false, command(to))
		}
		s.later(p.command(s, "rmi", "localhost/result-"+id)...)
		return s.timed(s.tmp(), command("localhost/result-"+id)...)
	}}
}
