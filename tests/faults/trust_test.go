package faults

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/signature/sigstore"
	"github.com/containers/image/v5/types"
	//lint:ignore SA1019 it is what the image library verifies with, and that does not sign
	"golang.org/x/crypto/openpgp" //nolint:staticcheck

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/convert"
	"github.com/kimg/kimg/convert/image"
	"github.com/kimg/kimg/internal/testimage"
	"github.com/kimg/kimg/layerdiff"
)

// signer signs with an OpenPGP key as gpg would.
type signer struct {
	signature.SigningMechanism
	key *openpgp.Entity
}

func newSigner(t *testing.T) signer {
	t.Helper()
	key, err := openpgp.NewEntity("test", "", "test@example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range key.Identities {
		id.SelfSignature.PreferredHash = []uint8{8} // SHA-256
	}
	return signer{key: key}
}

func (signer) SupportsSigning() error { return nil }

func (s signer) Sign(input []byte, _ string) ([]byte, error) {
	var out bytes.Buffer
	w, err := openpgp.Sign(&out, s.key, nil, nil)
	if err == nil {
		_, err = w.Write(input)
		err = errors.Join(err, w.Close())
	}
	return out.Bytes(), err
}

// sign makes the signature of a manifest under a name.
func (s signer) sign(t *testing.T, manifest []byte, name string) []byte {
	t.Helper()
	out, err := signature.SignDockerManifest(manifest, name, s, "")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// trusting writes a policy that wants a signature of the key, under the name of the image or under another one.
func (s signer) trusting(t *testing.T, sys *types.SystemContext, name string) {
	t.Helper()
	var public bytes.Buffer
	if err := s.key.Serialize(&public); err != nil {
		t.Fatal(err)
	}
	key := write(t, filepath.Join(t.TempDir(), "key.gpg"), public.Bytes())
	identity := ""
	if name != "" {
		identity = fmt.Sprintf(`,"signedIdentity":{"type":"exactReference","dockerReference":%q}`, name)
	}
	write(t, sys.SignaturePolicyPath, fmt.Appendf(nil, `{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":%q%s}]}`, key, identity))
}

func write(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// lookaside has the system look for signatures in the directory it returns, and for those of cosign in the registry.
func lookaside(t *testing.T, sys *types.SystemContext) string {
	t.Helper()
	dir := t.TempDir()
	sys.RegistriesDirPath = dir + "/registries.d"
	write(t, sys.RegistriesDirPath+"/default.yaml", fmt.Appendf(nil, "default-docker:\n  lookaside: file://%s/sigs\n  use-sigstore-attachments: true\n", dir))
	return dir + "/sigs"
}

// signatureFile is where the lookaside has the first signature of a manifest.
func signatureFile(dir, repo string, manifest []byte) string {
	return fmt.Sprintf("%s/%s@%s/signature-1", dir, repo, strings.Replace(Digest(manifest), ":", "=", 1))
}

// A signature must be of the key, whole, and about this image under this name, wherever it lies: else nothing is fetched and nothing left.
func TestSignedBy(t *testing.T) {
	good, bad := newSigner(t), newSigner(t)
	other := testimage.NewImage(62, testimage.ImageOptions{})
	for _, place := range []string{"lookaside", "dir", "registry"} {
		s := full()
		s.Signed = place == "registry"
		host := serve(t, s)
		name := host + "/app:1"
		sign := good.sign(t, sample.Manifest, name)
		for _, c := range []struct {
			what      string
			signature []byte
			want      kimg.Class
		}{
			{"none", nil, kimg.ErrDenied},
			{"good", sign, ""},
			{"another key", bad.sign(t, sample.Manifest, name), kimg.ErrDenied},
			{"tampered", flip(sign), kimg.ErrDenied},
			{"another digest", good.sign(t, other.Manifest, name), kimg.ErrDenied},
			{"another name", good.sign(t, sample.Manifest, host+"/app:2"), kimg.ErrDenied},
			{"no signature", []byte("signature"), kimg.ErrDenied},
		} {
			t.Run(place+" "+c.what, func(t *testing.T) {
				sys := system(t)
				sigs, src, exact := lookaside(t, sys), "docker://"+name, ""
				s.Signatures = nil
				switch place {
				case "dir":
					dir := t.TempDir() + "/src"
					if err := sample.WriteDir(dir); err != nil {
						t.Fatal(err)
					}
					src, exact = "dir:"+dir, name
					sigs = dir + "/signature-1"
				case "lookaside":
					sigs = signatureFile(sigs, "app", sample.Manifest)
				case "registry":
					s.Signatures = map[string][][]byte{Digest(sample.Manifest): {c.signature}}
				}
				if c.signature != nil && place != "registry" && (place == "dir" || c.what != "no signature") {
					write(t, sigs, c.signature)
				}
				good.trusting(t, sys, exact)
				s.Asked()
				dir := t.TempDir()
				_, err := copyImage(t, image.Options{Sys: sys, Single: true}, src, "dir:"+dir+"/x")
				ends(t, err, c.want)
				if names, _ := os.ReadDir(dir); c.want != "" && len(names) > 0 {
					t.Errorf("%v is left", names)
				}
				if slices.ContainsFunc(s.Asked(), func(q Request) bool { return c.want != "" && q.Kind == "blob" }) {
					t.Error("a blob was asked for")
				}
			})
		}
	}
}

// What cosign signed is accepted by its key, from the registry and from a directory, and by no other; and it comes along.
func TestSigstore(t *testing.T) {
	dir, tmp := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", tmp)
	var public [2]string
	for n := range public {
		keys, err := sigstore.GenerateKeyPair([]byte("secret"))
		if err != nil {
			t.Fatal(err)
		}
		public[n] = write(t, fmt.Sprintf("%s/%d.pub", dir, n), keys.PublicKey)
		write(t, fmt.Sprintf("%s/%d.key", dir, n), keys.PrivateKey)
	}
	if err := sample.WriteOCI(dir+"/layout", "a"); err != nil {
		t.Fatal(err)
	}
	s := &Registry{}
	name := serve(t, s) + "/app:1"
	sys := system(t)
	lookaside(t, sys)
	killed := tmp + "/.kimg-partial-1" // where one that was killed while it read signatures had them
	if err := os.MkdirAll(killed+"/signature-1", 0o700); err != nil {
		t.Fatal(err)
	}
	signed(t, sys, dir+"/0.key", "oci:"+dir+"/layout:a", "docker://"+name)
	trust := func(n int, exact string) {
		t.Helper()
		write(t, sys.SignaturePolicyPath, fmt.Appendf(nil, `{"default":[{"type":"sigstoreSigned","keyPath":%q,"signedIdentity":{"type":"exactReference","dockerReference":%q}}]}`, public[n], exact))
	}
	_, err := copyImage(t, image.Options{Sys: sys}, "docker://"+name, "dir:"+dir+"/0")
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range []kimg.Class{"", kimg.ErrDenied} {
		trust(n, name)
		for _, src := range []string{"docker://" + name, "dir:" + dir + "/0"} {
			_, err := copyImage(t, image.Options{Sys: sys}, src, "dir:"+t.TempDir()+"/x")
			ends(t, err, want)
		}
	}
	to := &Registry{}
	again := serve(t, to) + "/again:1"
	_, err = copyImage(t, image.Options{Sys: sys, DestinationSys: system(t)}, "dir:"+dir+"/0", "docker://"+again)
	if err == nil || len(to.Names()) > 0 { // registries.d does not allow attachments there
		t.Errorf("%v, %v", err, to.Names())
	}
	trust(0, name)
	if _, err := copyImage(t, image.Options{Sys: sys}, "dir:"+dir+"/0", "docker://"+again); err != nil {
		t.Fatal(err)
	}
	if _, err := copyImage(t, image.Options{Sys: sys}, "docker://"+again, "dir:"+dir+"/1"); err != nil { // signed under the first name, as wanted
		t.Error(err)
	}
	if one, two := s.Manifest("app", cosignTag(sample.Manifest)), to.Manifest("again", cosignTag(sample.Manifest)); one == nil || !bytes.Equal(one, two) {
		t.Errorf("another signature: %s\n%s", one, two)
	}
	trust(0, name+"0")
	_, err = copyImage(t, image.Options{Sys: sys}, "docker://"+name, "dir:"+t.TempDir()+"/x")
	ends(t, err, kimg.ErrDenied)
	if left, err := os.ReadDir(tmp); len(left) > 0 || err != nil {
		t.Errorf("left among the temporary files: %v, %v", left, err)
	}
}

// cosignTag is where cosign keeps the signatures of a manifest.
func cosignTag(manifest []byte) string {
	return strings.Replace(Digest(manifest), ":", "-", 1) + ".sig"
}

// Signatures go from registry to directory to registry, also those of the images of an index; where there is no place for them, or the
// image would change, it is refused unless they are to be left behind.
func TestSignaturesCarried(t *testing.T) {
	s := full()
	second := testimage.NewImage(63, testimage.ImageOptions{})
	s.PutManifest("app", "", second.Manifest, second.ManifestType)
	s.PutBlob("app", second.Config)
	s.PutBlob("app", second.Layers[0].Blob)
	index := indexOf(sample.ManifestType, sample.Manifest, second.Manifest)
	s.PutManifest("app", "all", index, "application/vnd.oci.image.index.v1+json")
	sys := system(t)
	sigs := lookaside(t, sys)
	want := map[string]string{}
	for n, manifest := range [][]byte{index, sample.Manifest, second.Manifest} {
		want[Digest(manifest)] = fmt.Sprintf("\x90 %d", n)
		write(t, signatureFile(sigs, "app", manifest), []byte(want[Digest(manifest)]))
	}
	src, to := "docker://"+serve(t, s), "docker://"+serve(t, &Registry{})
	dir := t.TempDir()
	for _, pair := range [][2]string{{src + "/app:all", "dir:" + dir + "/all"}, {"dir:" + dir + "/all", to + "/again:all"}, {to + "/again:all", src + "/third:1"}} {
		if _, err := copyImage(t, image.Options{Sys: sys, PreserveDigests: true}, pair[0], pair[1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, manifest := range [][]byte{index, sample.Manifest, second.Manifest} {
		if data, err := os.ReadFile(signatureFile(sigs, "third", manifest)); err != nil || string(data) != want[Digest(manifest)] {
			t.Errorf("%q, %v", data, err)
		}
	}
	for _, c := range []struct {
		src, dst string
		o        image.Options
	}{
		{src + "/app:1", "oci:" + dir + "/layout:a", image.Options{}},
		{src + "/app:all", "oci-archive:" + dir + "/all.tar", image.Options{}},
		{"dir:" + dir + "/all", "docker-archive:" + dir + "/one.tar", image.Options{Single: true}},
		{src + "/app:1", to + "/other:1", image.Options{Format: convert.DockerV2S2}},
		{src + "/app:all", to + "/other:1", image.Options{Compression: layerdiff.Zstd}},
	} {
		c.o.Sys = sys
		before, _ := os.ReadDir(dir)
		_, err := copyImage(t, c.o, c.src, c.dst)
		ends(t, err, kimg.ErrUnsupported)
		if err != nil && !strings.Contains(err.Error(), "--remove-signatures") {
			t.Error(err)
		}
		if after, _ := os.ReadDir(dir); len(after) != len(before) {
			t.Errorf("%s: %v is left", c.dst, after)
		}
		c.o.RemoveSignatures = true
		if _, err := copyImage(t, c.o, c.src, c.dst); err != nil {
			t.Errorf("%s: %v", c.dst, err)
		}
	}
}

// indexOf is an index of images for this machine and others.
func indexOf(mediaType string, manifests ...[]byte) []byte {
	var all []string
	for n, m := range manifests {
		arch := []string{runtime.GOARCH, "s390x", "riscv64"}[n]
		all = append(all, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":%q}}`, mediaType, Digest(m), len(m), arch))
	}
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s]}`, strings.Join(all, ","))
}

// signed copies an image with the image library, and has it signed with a key of cosign.
func signed(t *testing.T, sys *types.SystemContext, key, src, dst string) {
	t.Helper()
	policy, err := signature.NewPolicyContext(&signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}})
	if err != nil {
		t.Fatal(err)
	}
	from, err := image.Parse(src)
	if err != nil {
		t.Fatal(err)
	}
	to, err := image.Parse(dst)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := copy.Image(t.Context(), policy, to, from, &copy.Options{
		SignBySigstorePrivateKeyFile: key, SignSigstorePrivateKeyPassphrase: []byte("secret"), SourceCtx: sys, DestinationCtx: sys, ReportWriter: io.Discard,
	}); err != nil {
		t.Fatal(err)
	}
}
