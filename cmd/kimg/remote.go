package main

import (
	"os"
	"strings"

	"github.com/containers/image/v5/types"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kimg/kimg"
	convertimage "github.com/kimg/kimg/convert/image"
)

// remoteFlags say how a registry is spoken to.
type remoteFlags struct {
	prefix                   string // of the flags: empty, src- or dest-
	authFile, creds, certDir string
	tlsVerify                bool
	cmd                      *cobra.Command
}

func (r *remoteFlags) register(cmd *cobra.Command, prefix, whose string) {
	r.prefix, r.cmd = prefix, cmd
	f := cmd.Flags()
	f.StringVar(&r.authFile, prefix+"authfile", "", "`file` with logins for "+whose+" (default: that of podman login)")
	f.StringVar(&r.creds, prefix+"creds", "", "log in to "+whose+" as `user:password`")
	f.StringVar(&r.certDir, prefix+"cert-dir", "", "`directory` with certificates and keys for "+whose)
	f.BoolVar(&r.tlsVerify, prefix+"tls-verify", true, "insist on HTTPS and a valid certificate of "+whose)
}

// system is what the image library is told.
func (r *remoteFlags) system(a *app) (*types.SystemContext, error) {
	sys := a.systemContext()
	return sys, r.apply(sys)
}

// apply completes what the image library is told. What the flags do not say stays.
func (r *remoteFlags) apply(sys *types.SystemContext) error {
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

// registryFlags are those, and how often a registry is asked again.
type registryFlags struct {
	remoteFlags
	retry int
}

func (r *registryFlags) register(cmd *cobra.Command, whose string) {
	retryFlag(cmd.Flags(), &r.retry)
	r.remoteFlags.register(cmd, "", whose)
}

// tell completes options with what the flags say.
func (r *registryFlags) tell(a *app, p *convertimage.Options) (err error) {
	if p.Retries, err = retries(r.retry); err == nil {
		p.Sys, err = r.system(a)
	}
	return err
}

// sidesFlags are the flags for commands with a registry on either side: those for both, and those for one.
type sidesFlags struct{ both, src, dest remoteFlags }

func (s *sidesFlags) register(cmd *cobra.Command) {
	s.both.register(cmd, "", "registries")
	s.src.register(cmd, "src-", "the source's registry")
	s.dest.register(cmd, "dest-", "the destination's registry")
}

// systems are what the image library is told of the two sides.
func (s *sidesFlags) systems(a *app) (src, dest *types.SystemContext, err error) {
	src, dest = a.systemContext(), a.systemContext()
	for _, one := range []struct {
		flags *remoteFlags
		to    *types.SystemContext
	}{{&s.both, src}, {&s.both, dest}, {&s.src, src}, {&s.dest, dest}} {
		if err := one.flags.apply(one.to); err != nil {
			return nil, nil, err
		}
	}
	return src, dest, nil
}

// retryFlag is how often a registry is asked again.
func retryFlag(f *pflag.FlagSet, n *int) {
	f.IntVar(n, "retry", 3, "ask a registry that fails for a while again, `N` times")
}

// retries is the number as the library has it, where 0 is the default.
func retries(n int) (int, error) {
	switch {
	case n < 0 || n > 20:
		return 0, usagef("--retry", "%d is not a number from 0 to 20", n)
	case n == 0:
		return -1, nil
	}
	return n, nil
}
