package faults

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert/image"
)

// A scenario is one thing that goes wrong; want is the class in the end, empty for success.
type scenario struct {
	name  string
	fault Fault
	want  kimg.Class
}

// options are those of a scenario. Where nothing comes nobody waits for long, and a busy machine may make what goes well look like that.
func (c scenario) options() (o image.Options) {
	if strings.Contains(c.name, "silent") || strings.Contains(c.name, "stalls") {
		o.IdleTimeout = 200 * time.Millisecond
		if c.want == "" {
			o.Retries = 9
		}
	}
	return o
}

func flip(data []byte) []byte {
	out := bytes.Clone(data)
	out[len(out)/2] ^= 1
	return out
}

var pulls = []scenario{
	{"ping 500 once", Fault{Kind: "ping", Times: 1, Do: Status(500, "")}, ""},
	{"ping 503 for ever", Fault{Kind: "ping", Do: Status(503, "")}, kimg.ErrNetwork},
	{"ping reset once", Fault{Kind: "ping", Times: 1, Do: Reset}, ""},
	{"ping silent", Fault{Kind: "ping", Do: Silence}, kimg.ErrNetwork},
	{"manifest 500 twice", Fault{Kind: "manifest", Times: 2, Do: Status(500, "UNKNOWN")}, ""},
	{"manifest 502 once", Fault{Kind: "manifest", Times: 1, Do: Status(502, "")}, ""},
	{"manifest 503 once", Fault{Kind: "manifest", Times: 1, Do: Status(503, "UNAVAILABLE")}, ""},
	{"manifest 504 for ever", Fault{Kind: "manifest", Do: Status(504, "")}, kimg.ErrNetwork},
	{"manifest 404", Fault{Kind: "manifest", Do: Status(404, "MANIFEST_UNKNOWN")}, kimg.ErrNotFound},
	{"manifest 401", Fault{Kind: "manifest", Do: Status(401, "UNAUTHORIZED")}, kimg.ErrAuth},
	{"manifest 403", Fault{Kind: "manifest", Do: Status(403, "DENIED")}, kimg.ErrAuth},
	{"manifest 408", Fault{Kind: "manifest", Do: Status(408, "")}, kimg.ErrNetwork},
	{"manifest 400", Fault{Kind: "manifest", Do: Status(400, "")}, kimg.ErrNetwork},
	{"manifest 429 once", Fault{Kind: "manifest", Times: 1, Do: busy}, ""},
	{"manifest reset once", Fault{Kind: "manifest", Times: 1, Do: Reset}, ""},
	{"manifest silent once", Fault{Kind: "manifest", Times: 1, Do: Silence}, ""},
	{"manifest not JSON", Fault{Kind: "manifest", Do: Other(func([]byte) []byte { return []byte("<html>") })}, kimg.ErrInvalid},
	{"manifest cut once", Fault{Kind: "manifest", Times: 1, Do: Cut}, ""},
	{"manifest without end", Fault{Kind: "manifest", Do: Other(func([]byte) []byte { return bytes.Repeat([]byte(" "), 5<<20) })}, kimg.ErrLimit},
	{"manifest refused in colours", Fault{Kind: "manifest", Do: func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(400)
		_, _ = fmt.Fprintf(w, `{"errors":[{"code":"X","message":"\u001b[31m no\nkimg: yes\r %s"}]}`, strings.Repeat("long ", 10000))
	}}, kimg.ErrNetwork},
	{"manifest empty", Fault{Kind: "manifest", Do: Other(func([]byte) []byte { return nil })}, kimg.ErrInvalid},
	{"blob 500 once", Fault{Kind: "blob", Times: 1, Do: Status(500, "")}, ""},
	{"blob 503 for ever", Fault{Kind: "blob", Do: Status(503, "")}, kimg.ErrNetwork},
	{"blob 404", Fault{Kind: "blob", Do: Status(404, "BLOB_UNKNOWN")}, kimg.ErrNotFound},
	{"blob 401", Fault{Kind: "blob", Do: Status(401, "UNAUTHORIZED")}, kimg.ErrAuth},
	{"blob 401 once", Fault{Kind: "blob", Times: 1, Do: Status(401, "UNAUTHORIZED")}, ""},
	{"blob 403", Fault{Kind: "blob", Do: Status(403, "DENIED")}, kimg.ErrAuth},
	{"blob 429 once", Fault{Kind: "blob", Times: 1, Do: busy}, ""},
	{"blob reset once", Fault{Kind: "blob", Times: 1, Do: Reset}, ""},
	{"layer cut once", Fault{Kind: "blob", After: 1, Times: 1, Do: Cut}, ""},
	{"layer cut at its start", Fault{Kind: "blob", After: 1, Times: 1, Do: CutAt(0)}, ""},
	{"layer cut before its end", Fault{Kind: "blob", After: 1, Times: 1, Do: CutAt(-1)}, ""},
	{"layer without a length cut once", Fault{Kind: "blob", After: 1, Times: 1, Do: func(w http.ResponseWriter, r *http.Request, data []byte) {
		_, _ = w.Write(data[:len(data)/2])
		_ = http.NewResponseController(w).Flush()
		Reset(w, r, data)
	}}, ""},
	{"layer of another type", Fault{Kind: "blob", Do: Typed("text/html")}, ""},
	{"manifest of another type", Fault{Kind: "manifest", Do: Typed("text/html")}, kimg.ErrInvalid},
	{"layer cut three times", Fault{Kind: "blob", After: 1, Times: 3, Do: Cut}, ""},
	{"layer cut for ever", Fault{Kind: "blob", After: 1, Do: Cut}, kimg.ErrNetwork},
	{"layer cut, then 503 twice", Fault{Kind: "blob", After: 1, Times: 3, Do: then(Cut, Status(503, ""))}, ""},
	{"layer cut, then 503 for ever", Fault{Kind: "blob", After: 1, Do: then(Cut, Status(503, ""))}, kimg.ErrNetwork},
	{"layer cut, then 404", Fault{Kind: "blob", After: 1, Do: then(Cut, Status(404, "BLOB_UNKNOWN"))}, kimg.ErrNotFound},
	{"layer stalls once", Fault{Kind: "blob", After: 1, Times: 1, Do: Stall}, ""},
	{"layer stalls for ever", Fault{Kind: "blob", After: 1, Do: Stall}, kimg.ErrNetwork},
	{"config cut once", Fault{Kind: "blob", Times: 1, Do: Cut}, ""},
	{"config flipped", Fault{Kind: "blob", Times: 1, Do: Other(flip)}, kimg.ErrIntegrity},
	{"layer flipped", Fault{Kind: "blob", After: 1, Do: Other(flip)}, kimg.ErrIntegrity},
	{"layer short", Fault{Kind: "blob", After: 1, Do: Other(func(b []byte) []byte { return b[:len(b)-1] })}, kimg.ErrIntegrity},
	{"layer long", Fault{Kind: "blob", After: 1, Do: Other(func(b []byte) []byte { return append(bytes.Clone(b), 0) })}, kimg.ErrIntegrity},
	{"layer empty", Fault{Kind: "blob", After: 1, Do: Other(func([]byte) []byte { return nil })}, kimg.ErrIntegrity},
}

// then is one thing after the other, and the last for ever.
func then(all ...func(http.ResponseWriter, *http.Request, []byte)) func(http.ResponseWriter, *http.Request, []byte) {
	var n atomic.Int32
	return func(w http.ResponseWriter, r *http.Request, data []byte) {
		all[min(int(n.Add(1)), len(all))-1](w, r, data)
	}
}

func busy(w http.ResponseWriter, r *http.Request, data []byte) {
	w.Header().Set("Retry-After", "1")
	Status(429, "TOOMANYREQUESTS")(w, r, data)
}

var pushes = []scenario{
	{"ping 503 once", Fault{Kind: "ping", Times: 1, Do: Status(503, "")}, ""},
	{"ping silent once", Fault{Kind: "ping", Times: 1, Do: Silence}, ""},
	{"ping 503 for ever", Fault{Kind: "ping", Do: Status(503, "")}, kimg.ErrNetwork},
	{"head 500 once", Fault{Kind: "head", Times: 1, Do: Status(500, "")}, ""},
	{"head 403", Fault{Kind: "head", Do: Status(403, "")}, kimg.ErrAuth},
	{"post 500 once", Fault{Kind: "post", Times: 1, Do: Status(500, "")}, ""},
	{"post 401", Fault{Kind: "post", Do: Status(401, "UNAUTHORIZED")}, kimg.ErrAuth},
	{"post 403", Fault{Kind: "post", Do: Status(403, "DENIED")}, kimg.ErrAuth},
	{"post 413", Fault{Kind: "post", Do: Status(413, "")}, kimg.ErrNetwork},
	{"post without an address", Fault{Kind: "post", Do: Status(202, "")}, kimg.ErrNetwork},
	{"patch 416", Fault{Kind: "patch", Do: Status(416, "RANGE_INVALID")}, kimg.ErrNetwork},
	{"patch 503 once", Fault{Kind: "patch", Times: 1, Do: Status(503, "")}, ""},
	{"patch reset once", Fault{Kind: "patch", Times: 1, Do: Reset}, ""},
	{"patch reset for ever", Fault{Kind: "patch", Do: Reset}, kimg.ErrNetwork},
	{"put 502 once", Fault{Kind: "put", Times: 1, Do: Status(502, "")}, ""},
	{"put refuses the digest", Fault{Kind: "put", Do: Status(400, "DIGEST_INVALID")}, kimg.ErrNetwork},
	{"publish 500 once", Fault{Kind: "publish", Times: 1, Do: Status(500, "")}, ""},
	{"publish 429 once", Fault{Kind: "publish", Times: 1, Do: busy}, ""},
	{"publish 403", Fault{Kind: "publish", Do: Status(403, "DENIED")}, kimg.ErrAuth},
	{"publish refused", Fault{Kind: "publish", Do: Status(400, "MANIFEST_INVALID")}, kimg.ErrNetwork},
	{"publish silent once", Fault{Kind: "publish", Times: 1, Do: Silence}, ""},
}
