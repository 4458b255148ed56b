package main

import (
	"os"
	"strings"

	"github.com/containers/image/v5/types"
	"github.com/spf13/cobra"

	"github.com/kimg/kimg"
	convertimage "github.com/kimg/kimg/convert/image"
)

// registryFlags say how a registry is spoken to.
type registryFlags struct {
	prefix                   string // of the flags: empty, src- or dest-
	authFile, creds, certDir string
	tlsVerify                bool
	retry                    int // of those without a prefix
	cmd                      *cobra.Command
}

func (r *registryFlags) register(cmd *cobra.Command, prefix, whose string) {
	r.prefix, r.cmd = prefix, cmd
	f := cmd.Flags()
	f.StringVar(&r.authFile, prefix+"authfile", "", "`file` with logins for "+whose+" (default: that of podman login)")
	f.StringVar(&r.creds, prefix+"creds", "", "log in to "+whose+" as `user:password`")
	f.StringVar(&r.certDir, prefix+"cert-dir", "", "`directory` with certificates and keys for "+whose)
	f.BoolVar(&r.tlsVerify, prefix+"tls-verify", true, "insist on HTTPS and a valid certificate of "+whose)
	if prefix == "" {
		f.IntVar(&r.retry, "retry", 3, "ask a registry that fails for a while again, `N` times")
	}
}

// system is what the image library is told, and how often a registry is asked again, as our own has it: 0 is its default.
func (r *registryFlags) system(a *app) (sys *types.SystemContext, retries int, err error) {
	switch retries = r.retry; {
	case retries < 0 || retries > 20:
		return nil, 0, usagef("--retry", "%d is not a number from 0 to 20", retries)
	case retries == 0:
		retries = -1
	}
	sys = a.systemContext()
	return sys, retries, r.apply(sys)
}

// apply completes what the image library is told. What the flags do not say stays.
func (r *registryFlags) apply(sys *types.SystemContext) error {
	given := func(name string) bool { return r.cmd.Flags().Changed(r.prefix + name) }
	if given("authfile") {
		if _, err := os.Stat(r.authFile); err != nil {
			return kimg.Wrap(r.authFile, err)
		}
		sys.AuthFilePath = r.authFile
	}
	if given("creds") {
		user, password, ok := strings.Cut(r.creds, ":")
		if !ok || user == "" {
			return usagef("--"+r.prefix+"creds", "not user:password") // and nothing of it is shown
		}
		sys.DockerAuthConfig = &types.DockerAuthConfig{Username: user, Password: password}
	}
	if given("cert-dir") {
		sys.DockerCertPath = r.certDir
	}
	if given("tls-verify") {
		sys.DockerInsecureSkipTLSVerify = types.NewOptionalBool(!r.tlsVerify)
	}
	return nil
}

// sidesFlags are the flags for commands with a registry on either side: those for both, and those for one.
type sidesFlags struct{ both, src, dest registryFlags }

func (s *sidesFlags) register(cmd *cobra.Command) {
	s.both.register(cmd, "", "registries")
	s.src.register(cmd, "src-", "the source's registry")
	s.dest.register(cmd, "dest-", "the destination's registry")
}

// tell completes options with what the flags say of the two sides.
func (s *sidesFlags) tell(a *app, p *convertimage.Options) (err error) {
	if p.Sys, p.Retries, err = s.both.system(a); err != nil {
		return err
	}
	to := *p.Sys
	p.DestinationSys = &to
	if err := s.src.apply(p.Sys); err != nil {
		return err
	}
	return s.dest.apply(p.DestinationSys)
}
