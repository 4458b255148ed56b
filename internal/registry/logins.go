package registry

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
)

// hosts are those that may see the logins for a repository: its registry and its mirrors.
func hosts(sys *types.SystemContext, repo reference.Named) []string {
	all := []string{reference.Domain(repo)}
	if reg, err := sysregistriesv2.FindRegistry(sys, repo.Name()); err == nil && reg != nil { // else the library says what is wrong
		for _, at := range slices.Concat(reg.Mirrors, []sysregistriesv2.Endpoint{reg.Endpoint}) {
			host, _, _ := strings.Cut(at.Location, "/")
			all = append(all, host)
		}
	}
	return all
}

// keeper looks at the requests of one context, which come one after the other, and breaks a connection before a login leaves through it
// that is not for its host. containers/image adds the login to whatever address a registry names for an upload, and Go keeps it
// when a redirect leaves TLS.
type keeper struct {
	hosts []string
	end   context.CancelCauseFunc

	mu     sync.Mutex
	conn   net.Conn
	host   string // of the request under way
	held   bool   // nothing of it may be sent before its whole header was looked at
	seen   bool   // hosts has seen a login
	basic  bool   // hosts has seen a login that is no token: it is not for token servers
	secure bool   // hosts has seen a login through TLS
}

// keepLogins returns a context for requests to hosts. A login for them goes to their subdomains too, as in Go, which redirects of large
// registries rely on; a password goes to the server that gives tokens for it; neither goes without TLS where it once went with it. Else
// the request ends, and the context by cancel with class auth. Nothing is looked at without hosts.
func keepLogins(ctx context.Context, hosts []string, cancel context.CancelCauseFunc) context.Context {
	if len(hosts) == 0 {
		return ctx
	}
	k := &keeper{hosts: hosts, end: cancel}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.conn = info.Conn
		},
		// Called while the header is put together, in order: what was written is still in memory.
		WroteHeaderField: func(key string, values []string) {
			k.mu.Lock()
			defer k.mu.Unlock()
			switch key {
			case "Host":
				k.host = strings.Join(values, "")
				k.hold()
			case "Authorization":
				k.judge(strings.Join(values, ""))
			}
		},
		WroteHeaders: func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.free()
		},
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			k.mu.Lock()
			defer k.mu.Unlock()
			if k.held && info.Err != nil {
				cancel(kimg.Errorf(kimg.ErrAuth, "", "the registry names an address at %s that is too long to see, before it is sent, that no login is", kimg.Quote(k.host)))
			}
			k.held = false
		},
	})
}

// hold keeps Go from sending the first part of a long header, which may be a part of a login, before the login was judged.
func (k *keeper) hold() {
	if ours, secure := k.at(); k.conn != nil && k.seen && (!ours || k.secure && !secure) {
		k.held = k.conn.SetWriteDeadline(time.Unix(1, 0)) == nil
	}
}

// free ends hold.
func (k *keeper) free() {
	if k.held {
		k.held = k.conn.SetWriteDeadline(time.Time{}) != nil
	}
}

// at tells whether the request under way goes to one of hosts, and through TLS.
func (k *keeper) at() (ours, secure bool) {
	_, secure = k.conn.(*tls.Conn)
	return k.ours(k.host), secure
}

func (k *keeper) judge(login string) {
	if k.conn == nil {
		return
	}
	ours, secure := k.at()
	scheme, _, _ := strings.Cut(login, " ")
	basic := strings.EqualFold(scheme, "basic")
	if ours && (secure || !k.secure) {
		k.seen, k.basic, k.secure = true, k.basic || basic, k.secure || secure
		return
	}
	if !ours && basic && !k.basic { // a server for tokens
		return
	}
	where := "to another host"
	if ours {
		where = "without TLS"
	}
	_ = k.conn.Close() // before the login is sent
	k.end(kimg.Errorf(kimg.ErrAuth, "", "the registry wants its login to be sent %s, %s", where, kimg.Quote(k.host)))
}

// ours tells whether a host is one of hosts or below one, on any port.
func (k *keeper) ours(host string) bool {
	name := bare(host)
	for _, one := range k.hosts {
		if one = bare(one); one != "" && (name == one || strings.HasSuffix(name, "."+one) && net.ParseIP(one) == nil) {
			return true
		}
	}
	return false
}

// bare is a host without its port, in lower case.
func bare(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}
