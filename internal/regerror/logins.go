package regerror

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/types"

	"github.com/kimg/kimg"
)

// Hosts are the hosts that may see the logins for a repository: its registry and its mirrors.
func Hosts(sys *types.SystemContext, repo reference.Named) []string {
	hosts := []string{reference.Domain(repo)}
	if reg, err := sysregistriesv2.FindRegistry(sys, repo.Name()); err == nil && reg != nil { // else the library says what is wrong
		for _, at := range slices.Concat(reg.Mirrors, []sysregistriesv2.Endpoint{reg.Endpoint}) {
			host, _, _ := strings.Cut(at.Location, "/")
			hosts = append(hosts, host)
		}
	}
	return hosts
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
			case "Host", ":authority":
				k.host = strings.Join(values, "")
			case "Authorization", "authorization":
				k.judge(strings.Join(values, ""))
			}
		},
	})
}

func (k *keeper) judge(login string) {
	if k.conn == nil {
		return
	}
	_, secure := k.conn.(*tls.Conn)
	scheme, _, _ := strings.Cut(login, " ")
	basic := strings.EqualFold(scheme, "basic")
	ours := k.ours(k.host)
	if ours && (secure || !k.secure) {
		k.basic, k.secure = k.basic || basic, k.secure || secure
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
