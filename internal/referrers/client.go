package referrers

import (
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/pkg/tlsclientconfig"
	"github.com/containers/image/v5/types"
	"github.com/containers/storage/pkg/homedir"

	"github.com/kimg/kimg"
)

// client is as the image library's own: certificates by host, of sys or else of the usual directories (containers-certs.d).
func client(sys *types.SystemContext, repo reference.Named) (*http.Client, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if dir := certificates(sys, reference.Domain(repo)); dir != "" {
		if err := tlsclientconfig.SetupCertificates(dir, conf); err != nil {
			return nil, kimg.Errorf(kimg.ErrTLS, dir, "%w", err)
		}
	}
	reg, err := sysregistriesv2.FindRegistry(sys, repo.Name())
	if err != nil {
		return nil, kimg.Errorf(kimg.ErrInvalid, "registries.conf", "%w", err)
	}
	conf.InsecureSkipVerify = reg != nil && reg.Insecure
	if sys.DockerInsecureSkipTLSVerify != types.OptionalBoolUndefined {
		conf.InsecureSkipVerify = sys.DockerInsecureSkipTLSVerify == types.OptionalBoolTrue
	}
	t := tlsclientconfig.NewTransport()
	t.TLSClientConfig = conf
	if sys.DockerProxyURL != nil {
		t.Proxy = http.ProxyURL(sys.DockerProxyURL)
	}
	return &http.Client{Transport: t, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if elsewhere := req.URL.Host != via[0].URL.Host; len(via) > 5 || elsewhere && !strings.Contains(via[0].URL.Path, "/manifests/") {
			return http.ErrUseLastResponse // who lists what is about others is the registry itself
		}
		return nil
	}}, nil
}

func certificates(sys *types.SystemContext, host string) string {
	switch {
	case sys.DockerCertPath != "":
		return sys.DockerCertPath
	case sys.DockerPerHostCertDirPath != "":
		return filepath.Join(sys.DockerPerHostCertDirPath, host)
	}
	for _, dir := range []string{filepath.Join(homedir.Get(), ".config/containers/certs.d"), "/etc/containers/certs.d", "/etc/docker/certs.d"} {
		dir = filepath.Join(dir, host)
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
	}
	return ""
}

// challenge finds a token server in the challenges of a registry (RFC 9110, 11.6.1).
func challenge(all []string) (realm, service string, bearer bool) {
	for _, one := range all {
		if scheme, rest, _ := strings.Cut(one, " "); strings.EqualFold(scheme, "bearer") {
			return parameter(rest, "realm"), parameter(rest, "service"), true
		}
	}
	return "", "", false
}

func parameter(all, name string) string {
	_, rest, _ := strings.Cut(all, name+`="`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}
