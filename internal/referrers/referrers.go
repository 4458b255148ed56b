// Package referrers asks registries which manifests are about another one (OCI distribution specification 1.1, "Listing Referrers"), and
// what many tags lead to. containers/image, which speaks to registries for everything else, does not know the first, and begins anew, with
// another connection and login, for every tag.
package referrers

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/pkg/docker/config"
	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/registry"
	"github.com/kimg/kimg/internal/strict"
)

// Client asks about one repository. Not for concurrent use.
type Client struct {
	repo     reference.Named
	patience registry.Patience
	login    types.DockerAuthConfig
	token    string // of a token server, or given
	given    bool
	basic    bool // the registry wants the login itself

	http   *http.Client
	scheme string // that the registry has; empty: not known yet
}

// New prepares to ask about a repository, as sys and registries.conf say, which may be nil. Its mirrors are not asked. The caller closes it.
func New(sys *types.SystemContext, repo reference.Named, p registry.Patience) (*Client, error) {
	if sys == nil {
		sys = &types.SystemContext{}
	}
	c := &Client{repo: repo, patience: p.For(sys, repo)}
	c.patience.Limited = true
	if reg, err := sysregistriesv2.FindRegistry(sys, repo.Name()); err != nil {
		return nil, kimg.Errorf(kimg.ErrInvalid, "registries.conf", "%w", err)
	} else if reg != nil {
		sources, err := reg.PullSourcesFromReference(repo)
		if err != nil || len(sources) == 0 {
			return nil, kimg.Errorf(kimg.ErrInvalid, "registries.conf", "%w", err)
		}
		c.repo = sources[len(sources)-1].Reference // where the registry itself is
	}
	var err error
	if c.login, err = config.GetCredentialsForRef(sys, c.repo); err != nil {
		return nil, err
	}
	c.token, c.given = sys.DockerBearerRegistryToken, sys.DockerBearerRegistryToken != ""
	c.http, err = client(sys, c.repo)
	return c, err
}

// Close closes connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// List returns what a registry says is about a manifest, from all pages; false when it does not have the API. More than most is
// class limit. Neither are the descriptors' manifests read, nor is it known that they are about it.
func (c *Client) List(ctx context.Context, about digest.Digest, most int) (all []ispec.Descriptor, ok bool, err error) {
	if err := strict.Digest(about.String()); err != nil {
		return nil, false, err
	}
	err = c.patience.Ask(ctx, func(ctx context.Context) error {
		all, ok, err = c.list(ctx, about, most)
		return err
	})
	return all, ok, err
}

func (c *Client) list(ctx context.Context, about digest.Digest, most int) (all []ispec.Descriptor, ok bool, err error) {
	for at := c.path("referrers", about.String()); at != ""; {
		page, next, err := c.page(ctx, at)
		if err != nil || page == nil {
			return nil, false, err
		}
		if all = append(all, page...); len(all) > most {
			return nil, false, kimg.Errorf(kimg.ErrLimit, about.String(), "too-big: the registry has more than %d referrers of it", most)
		}
		if len(page) == 0 && next != "" {
			return nil, false, kimg.Errorf(kimg.ErrInvalid, about.String(), "referrers: an empty page that is not the last")
		}
		at = next
	}
	return all, true, nil
}

// Manifest returns what a tag leads to; nil when there is no such tag.
func (c *Client) Manifest(ctx context.Context, tag string) (data []byte, err error) {
	err = c.patience.Ask(ctx, func(ctx context.Context) error {
		res, err := c.get(ctx, c.path("manifests", tag), manifest.DefaultRequestedManifestMIMETypes)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode == http.StatusNotFound {
			return nil
		}
		if err = refused(res); err == nil {
			data, err = body(res, strict.MaxDocument)
		}
		return err
	})
	return data, err
}

// path is where something of the repository is.
func (c *Client) path(kind, name string) string {
	return "/v2/" + reference.Path(c.repo) + "/" + kind + "/" + name
}

// page reads one page and finds the next; nil when there is no such thing.
func (c *Client) page(ctx context.Context, at string) (all []ispec.Descriptor, next string, err error) {
	res, err := c.get(ctx, at, []string{ispec.MediaTypeImageIndex})
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch {
	case slices.Contains([]int{http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable}, res.StatusCode),
		res.StatusCode == http.StatusOK && kind != ispec.MediaTypeImageIndex:
		return nil, "", nil
	}
	if err := refused(res); err != nil {
		return nil, "", err
	}
	data, err := body(res, strict.MaxDocument)
	if err != nil {
		return nil, "", err
	}
	var index ispec.Index
	if err := strict.UnmarshalExact(data, &index); err != nil {
		return nil, "", kimg.Wrap("referrers", err)
	}
	for _, d := range index.Manifests {
		if err := strict.Digest(d.Digest.String()); err != nil {
			return nil, "", kimg.Wrap("referrers", err)
		}
	}
	next, err = following(res)
	return append([]ispec.Descriptor{}, index.Manifests...), next, err
}

// refused is an answer that does not give what was asked for.
func refused(res *http.Response) error {
	switch res.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusTooManyRequests:
		return docker.ErrTooManyRequests
	case http.StatusUnauthorized, http.StatusForbidden:
		return kimg.Errorf(kimg.ErrAuth, "referrers", "the registry answers with status %d", res.StatusCode)
	}
	return fmt.Errorf("referrers: %w (status %d)", docker.UnexpectedHTTPStatusError{StatusCode: res.StatusCode}, res.StatusCode)
}

// following finds the next page in a Link header (RFC 8288); a login must not go to another host.
func following(res *http.Response) (string, error) {
	for _, link := range strings.Split(strings.Join(res.Header.Values("Link"), ","), ",") {
		target, rest, ok := strings.Cut(link, ">")
		if target = strings.TrimSpace(target); !ok || !strings.HasPrefix(target, "<") || !strings.Contains(strings.ReplaceAll(rest, `"`, ""), "rel=next") {
			continue
		}
		to, err := res.Request.URL.Parse(target[1:])
		if err != nil || to.Host != res.Request.URL.Host || to.Scheme != res.Request.URL.Scheme {
			return "", kimg.Errorf(kimg.ErrInvalid, "referrers", "the next page is not on this registry")
		}
		return to.RequestURI(), nil
	}
	return "", nil
}

// body reads a body of at most so many bytes.
func body(res *http.Response, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	if err == nil {
		err = strict.Size("referrers", int64(len(data)), most)
	}
	return data, err
}

// get asks the registry, and logs in when it wants that, also when it takes a token back.
func (c *Client) get(ctx context.Context, at string, accept []string) (*http.Response, error) {
	res, err := c.ask(ctx, at, accept)
	if err != nil || res.StatusCode != http.StatusUnauthorized || c.given {
		return res, err
	}
	res.Body.Close()
	if err := c.logIn(ctx, res); err != nil {
		return nil, err
	}
	return c.ask(ctx, at, accept)
}

// ask asks once, by HTTPS, or, where certificates are of no matter, by HTTP where that is what there is.
func (c *Client) ask(ctx context.Context, at string, accept []string) (*http.Response, error) {
	host := reference.Domain(c.repo)
	if host == "docker.io" {
		host = "registry-1.docker.io"
	}
	schemes := []string{c.scheme}
	if c.scheme == "" {
		schemes = []string{"https"}
		if c.http.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify {
			schemes = append(schemes, "http")
		}
	}
	var first error
	for _, scheme := range schemes {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+at, nil)
		if err != nil {
			return nil, err
		}
		req.Header["Accept"] = accept
		switch {
		case c.token != "":
			req.Header.Set("Authorization", "Bearer "+c.token)
		case c.basic && c.login.Username != "":
			req.SetBasicAuth(c.login.Username, c.login.Password)
		}
		res, err := c.http.Do(req)
		if err == nil {
			c.scheme = scheme
			return res, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// logIn does what a registry's challenge wants: nothing for basic logins, which come along from now on, or it gets a token.
func (c *Client) logIn(ctx context.Context, res *http.Response) error {
	realm, service, bearer := challenge(res.Header.Values("WWW-Authenticate"))
	if c.basic = !bearer; c.basic {
		return nil
	}
	to, err := url.Parse(realm)
	if err != nil || to.Host == "" || to.Scheme != "https" && to.Scheme != c.scheme {
		return kimg.Errorf(kimg.ErrAuth, "referrers", "the registry wants a token from nowhere")
	}
	q := to.Query()
	q.Set("service", service)
	q.Set("scope", "repository:"+reference.Path(c.repo)+":pull")
	to.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err == nil && c.login.IdentityToken != "" {
		q.Set("grant_type", "refresh_token")
		q.Set("refresh_token", c.login.IdentityToken)
		q.Set("client_id", "kimg")
		to.RawQuery = ""
		if req, err = http.NewRequestWithContext(ctx, http.MethodPost, to.String(), strings.NewReader(q.Encode())); err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
	} else if err == nil && c.login.Username != "" {
		req.SetBasicAuth(c.login.Username, c.login.Password)
	}
	if err != nil {
		return err
	}
	answer, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	switch busy := answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode/100 == 5; {
	case busy:
		return refused(answer)
	case answer.StatusCode != http.StatusOK:
		return kimg.Errorf(kimg.ErrAuth, "referrers", "no token: status %d", answer.StatusCode)
	}
	data, err := body(answer, 1<<20)
	if err != nil {
		return err
	}
	var given struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if err := strict.UnmarshalExact(data, &given); err != nil {
		return kimg.Errorf(kimg.ErrAuth, "referrers", "no token: %w", err)
	}
	c.token = cmp.Or(given.Token, given.AccessToken)
	return nil
}
