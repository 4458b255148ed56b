// Package faults is a registry that does wrong what registries, proxies and networks do wrong, and tests that hold what happens then.
package faults

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Registry is a registry in memory with one level of repository names. Its fields are set before it serves.
type Registry struct {
	Fault     *Fault
	User      string // user:password; empty: nobody has to log in
	Token     bool   // logins are for a token server, at /token, and not for the registry
	Uses      int    // a token is good for so many requests; 0: for ever
	Elsewhere string // where GET of blobs is sent to, a URL; empty: nowhere
	NoMount   bool

	Referrers bool // it has the API that lists them, with one entry on each page

	Signed     bool                // it keeps signatures itself (X-Registry-Supports-Signatures)
	Signatures map[string][][]byte // digest -> simple signatures

	mu        sync.Mutex
	manifests map[string]document // repository@digest or repository:tag
	blobs     map[string][]byte   // repository@digest
	uploads   map[string][]byte
	asked     []Request
	hits      int
	tokens    map[string]int // how often each was used
}

type document struct {
	data      []byte
	mediaType string
}

// Request is one that came.
type Request struct {
	Method, Path, Kind string // the kinds: ping, token, manifest, blob, head, mount, post, patch, put, publish, tags, delete
	Authorization      string
	Range              string
	Received           int // bytes of its body
}

// Fault is what goes wrong, with requests of one kind, after some of them went well, and for how many of them.
type Fault struct {
	Kind         string
	After, Times int // Times 0: for ever
	Do           func(w http.ResponseWriter, r *http.Request, body []byte)
}

// Digest is that of some bytes.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// PutManifest puts a manifest there by its digest, and under a tag unless that is empty.
func (s *Registry) PutManifest(repo, tag string, data []byte, mediaType string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.manifests == nil {
		s.manifests = map[string]document{}
	}
	s.manifests[repo+"@"+Digest(data)] = document{data, mediaType}
	if tag != "" {
		s.manifests[repo+":"+tag] = document{data, mediaType}
	}
}

// PutBlob puts a blob there.
func (s *Registry) PutBlob(repo string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.putBlob(repo, Digest(data), data)
}

func (s *Registry) putBlob(repo, digest string, data []byte) {
	if s.blobs == nil {
		s.blobs = map[string][]byte{}
	}
	s.blobs[repo+"@"+digest] = data
}

// Manifest is what a tag or a digest of a repository leads to; nil: nothing.
func (s *Registry) Manifest(repo, name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.manifest(repo, name).data
}

func (s *Registry) manifest(repo, name string) document {
	if strings.Contains(name, ":") {
		return s.manifests[repo+"@"+name]
	}
	return s.manifests[repo+":"+name]
}

// Asked are the requests that came since it was asked last.
func (s *Registry) Asked() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.asked
	s.asked = nil
	return all
}

// Names are the tags of everything that is there.
func (s *Registry) Names() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.manifests {
		if !strings.Contains(name, "@") {
			all = append(all, name)
		}
	}
	return all
}

// ServeHTTP implements http.Handler.
func (s *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	repo, what, name := split(r.URL.Path)
	q := Request{Method: r.Method, Path: r.URL.String(), Kind: kind(r, what, name), Authorization: r.Header.Get("Authorization"), Range: r.Header.Get("Range")}
	var f *Fault
	s.mu.Lock()
	if s.Fault != nil && s.Fault.Kind == q.Kind {
		s.hits++
		if n := s.hits - s.Fault.After; n > 0 && (s.Fault.Times == 0 || n <= s.Fault.Times) {
			f = s.Fault
		}
	}
	s.mu.Unlock()
	body := []byte(nil)
	if f == nil || q.Kind != "patch" {
		body, _ = io.ReadAll(r.Body)
	}
	q.Received = len(body)
	s.mu.Lock()
	s.asked = append(s.asked, q)
	data := s.blobs[repo+"@"+name]
	s.mu.Unlock()
	switch {
	case f != nil:
		f.Do(w, r, data)
	case !s.allowed(w, r, q.Kind):
	default: // nothing is sent under the lock: who reads slowly would hold up everybody, and himself
		answer := httptest.NewRecorder()
		s.answer(answer, r, q.Kind, repo, name, body)
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	}
}

// split takes /v2/REPO/WHAT/NAME apart.
func split(path string) (repo, what, name string) {
	parts := strings.SplitN(strings.TrimPrefix(strings.TrimPrefix(path, "/extensions"), "/v2/"), "/", 3)
	for len(parts) < 3 {
		parts = append(parts, "")
	}
	return parts[0], parts[1], parts[2]
}

func kind(r *http.Request, what, name string) string {
	switch {
	case r.URL.Path == "/v2/":
		return "ping"
	case r.URL.Path == "/token":
		return "token"
	case r.Method == "DELETE":
		return "delete"
	case what == "tags", what == "signatures", what == "referrers":
		return what
	case what == "manifests" && r.Method == "PUT":
		return "publish"
	case what == "manifests":
		return "manifest"
	case what == "blobs" && r.Method == "POST" && r.URL.Query().Get("mount") != "":
		return "mount"
	case strings.HasPrefix(name, "uploads/"):
		return strings.ToLower(r.Method)
	case r.Method == "HEAD":
		return "head"
	}
	return "blob"
}

// allowed looks at the login of a request, and answers those without a good one.
func (s *Registry) allowed(w http.ResponseWriter, r *http.Request, kind string) bool {
	if s.User == "" {
		return true
	}
	user, password, _ := r.BasicAuth()
	basic := user+":"+password == s.User
	switch {
	case kind == "token":
		if basic {
			_ = json.NewEncoder(w).Encode(map[string]any{"token": s.newToken(), "expires_in": 1})
			return false
		}
	case s.Token && s.use(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")), !s.Token && basic:
		return true
	}
	challenge := `Basic realm="faults"`
	if s.Token {
		challenge = fmt.Sprintf(`Bearer realm="http://%s/token",service="faults"`, r.Host)
	}
	w.Header().Set("WWW-Authenticate", challenge)
	Status(http.StatusUnauthorized, "UNAUTHORIZED")(w, r, nil)
	return false
}

func (s *Registry) newToken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tokens == nil {
		s.tokens = map[string]int{}
	}
	token := fmt.Sprintf("token-%d", len(s.tokens))
	s.tokens[token] = 0
	return token
}

// use tells whether a token is good.
func (s *Registry) use(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.tokens[token]
	if ok {
		s.tokens[token]++
	}
	return ok && (s.Uses == 0 || n < s.Uses)
}

func (s *Registry) answer(w http.ResponseWriter, r *http.Request, kind, repo, name string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch kind {
	case "ping":
		if s.Signed {
			w.Header().Set("X-Registry-Supports-Signatures", "1")
		}
	case "referrers":
		s.referrers(w, r, repo, name)
	case "signatures":
		s.signatures(w, r, name, body)
	case "manifest":
		m := s.manifest(repo, name)
		if m.data == nil {
			Status(http.StatusNotFound, "MANIFEST_UNKNOWN")(w, r, nil)
			return
		}
		w.Header().Set("Content-Type", m.mediaType)
		_, _ = w.Write(m.data)
	case "head", "blob":
		data, ok := s.blobs[repo+"@"+name]
		switch {
		case !ok:
			Status(http.StatusNotFound, "BLOB_UNKNOWN")(w, r, nil)
		case kind == "blob" && s.Elsewhere != "":
			http.Redirect(w, r, s.Elsewhere+r.URL.Path, http.StatusTemporaryRedirect)
		default:
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(data)))
		}
	case "mount":
		if data, ok := s.blobs[r.URL.Query().Get("from")+"@"+r.URL.Query().Get("mount")]; ok && !s.NoMount {
			s.putBlob(repo, r.URL.Query().Get("mount"), data)
			w.WriteHeader(http.StatusCreated)
			return
		}
		fallthrough
	case "post":
		if s.uploads == nil {
			s.uploads = map[string][]byte{}
		}
		id := strconv.Itoa(len(s.uploads))
		s.uploads[id] = nil
		s.continued(w, repo, id)
	case "patch":
		id := strings.TrimPrefix(name, "uploads/")
		s.uploads[id] = append(s.uploads[id], body...)
		s.continued(w, repo, id)
	case "put":
		data := append(s.uploads[strings.TrimPrefix(name, "uploads/")], body...)
		want := r.URL.Query().Get("digest")
		if Digest(data) != want {
			Status(http.StatusBadRequest, "DIGEST_INVALID")(w, r, nil)
			return
		}
		s.putBlob(repo, want, data)
		w.WriteHeader(http.StatusCreated)
	case "publish":
		if s.manifests == nil {
			s.manifests = map[string]document{}
		}
		m := document{body, r.Header.Get("Content-Type")}
		s.manifests[repo+"@"+Digest(body)] = m
		if !strings.Contains(name, ":") {
			s.manifests[repo+":"+name] = m
		}
		w.WriteHeader(http.StatusCreated)
	default:
		http.NotFound(w, r)
	}
}

// referrers lists the manifests whose subject is a digest, one on each page.
func (s *Registry) referrers(w http.ResponseWriter, r *http.Request, repo, about string) {
	if !s.Referrers {
		http.NotFound(w, r)
		return
	}
	entries := []string{}
	for name, m := range s.manifests {
		var said struct{ Subject struct{ Digest string } }
		if strings.HasPrefix(name, repo+"@") && json.Unmarshal(m.data, &said) == nil && said.Subject.Digest == about {
			entries = append(entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, m.mediaType, Digest(m.data), len(m.data)))
		}
	}
	slices.Sort(entries)
	at, _ := strconv.Atoi(r.URL.Query().Get("at"))
	at = min(at, len(entries))
	if at+1 < len(entries) {
		w.Header().Set("Link", fmt.Sprintf(`<%s?at=%d>; rel="next"`, r.URL.Path, at+1))
	}
	w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
	_, _ = fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s]}`, strings.Join(entries[at:min(at+1, len(entries))], ","))
}

// signatures answers as OpenShift's registry does.
func (s *Registry) signatures(w http.ResponseWriter, r *http.Request, digest string, body []byte) {
	type signature struct {
		Version int    `json:"schemaVersion"`
		Name    string `json:"name"`
		Type    string `json:"type"`
		Content []byte `json:"content"`
	}
	if r.Method == "PUT" {
		var one signature
		if json.Unmarshal(body, &one) != nil {
			Status(http.StatusBadRequest, "")(w, r, nil)
			return
		}
		s.Signatures[digest] = append(s.Signatures[digest], one.Content)
		w.WriteHeader(http.StatusCreated)
		return
	}
	all := []signature{}
	for n, content := range s.Signatures[digest] {
		all = append(all, signature{2, fmt.Sprintf("%s@%032x", digest, n), "atomic", content})
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"signatures": all})
}

func (s *Registry) continued(w http.ResponseWriter, repo, id string) {
	w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+id)
	w.Header().Set("Range", "0-0")
	w.WriteHeader(http.StatusAccepted)
}

// Status answers with a status and an error as registries write it.
func Status(code int, id string) func(http.ResponseWriter, *http.Request, []byte) {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		if id != "" {
			_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"as it was asked for"}]}`, id)
		}
	}
}

// Reset breaks the connection before there is an answer.
func Reset(http.ResponseWriter, *http.Request, []byte) { panic(http.ErrAbortHandler) }

// Cut answers with half of what was asked for and breaks the connection.
func Cut(w http.ResponseWriter, _ *http.Request, data []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(max(len(data), 2)))
	_, _ = w.Write(data[:len(data)/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// CutAt is Cut after n bytes, or before the last -n.
func CutAt(n int) func(http.ResponseWriter, *http.Request, []byte) {
	return func(w http.ResponseWriter, _ *http.Request, data []byte) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:(n+len(data))%len(data)])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// Typed says that what was asked for is of another type.
func Typed(mediaType string) func(http.ResponseWriter, *http.Request, []byte) {
	return func(w http.ResponseWriter, _ *http.Request, data []byte) {
		w.Header().Set("Content-Type", mediaType)
		_, _ = w.Write(data)
	}
}

// Stall answers with half of what was asked for and then with nothing.
func Stall(w http.ResponseWriter, r *http.Request, data []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(max(len(data), 2)))
	_, _ = w.Write(data[:len(data)/2])
	_ = http.NewResponseController(w).Flush()
	Silence(w, r, data)
}

// Silence does not answer.
func Silence(_ http.ResponseWriter, r *http.Request, _ []byte) {
	_, _ = io.Copy(io.Discard, r.Body) // before that nobody notices that the client has gone
	select {
	case <-r.Context().Done():
	case <-time.After(20 * time.Second):
	}
}

// Other answers with something else than was asked for.
func Other(change func([]byte) []byte) func(http.ResponseWriter, *http.Request, []byte) {
	return func(w http.ResponseWriter, _ *http.Request, data []byte) { _, _ = w.Write(change(data)) }
}
