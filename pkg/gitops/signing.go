package gitops

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// NoSigning as Signing.Key makes commits without a signature, whatever git's
// configuration says.
const NoSigning = "none"

// EnvSigningPassphrase is the environment variable with the passphrase of the
// key that signs.
const EnvSigningPassphrase = "AUTOPOLICY_SIGNING_PASSPHRASE"

// Signing says what commits are signed with.
type Signing struct {
	// Key is a file with an armored OpenPGP private key, an SSH private key, or an
	// SSH public key whose private half the SSH agent or the file beside it has.
	// Empty: as git's commit.gpgSign, gpg.format and user.signingKey say.
	Key        string
	Passphrase string
}

// String keeps the passphrase out of messages and logs.
func (s Signing) String() string { return "signing key " + s.Key }

// GoString is String for %#v.
func (s Signing) GoString() string { return s.String() }

// SigningError says that commits shall be signed and cannot be.
type SigningError struct {
	Reason string
	Advice string // may be empty
}

func (e *SigningError) Error() string { return "sign the commit: " + e.Reason }

// Hint says what a person can do about it.
func (e *SigningError) Hint() string {
	return cmp.Or(e.Advice, "name a key file with --signing-key, or leave the signature out with --signing-key="+NoSigning)
}

// signer makes the signature of a commit's bytes, armored.
type signer func(payload []byte) (string, error)

// signer returns nil where commits are not to be signed.
func (r *Repository) signer() (signer, error) {
	key, format := r.signing.Key, ""
	switch key {
	case NoSigning:
		return nil, nil
	case "":
		scopes, err := r.backend.configuration()
		if err != nil {
			return nil, err
		}
		if !truth(setting(scopes, "commit", "gpgsign")) {
			return nil, nil
		}
		key, format = setting(scopes, "user", "signingkey"), cmp.Or(strings.ToLower(setting(scopes, "gpg", "format")), "openpgp")
	}
	switch {
	case format == "openpgp":
		if data, err := readArmored(key); err == nil {
			return openPGP(data, r.signing.Passphrase)
		}
		return nil, &SigningError{
			Reason: fmt.Sprintf("git's configuration asks for a signature by gpg's key %s, and gpg's agent is not spoken to", escape(cmp.Or(key, "of that name"))),
			Advice: "name a file with the key with --signing-key ('gpg --armor --export-secret-keys' writes one), sign with an SSH key (gpg.format=ssh), or leave the signature out with --signing-key=" + NoSigning,
		}
	case format != "" && format != "ssh":
		return nil, &SigningError{Reason: "git's configuration asks for a signature in the format " + escape(format) + ", which is not supported"}
	case key == "":
		return nil, &SigningError{Reason: "git's configuration names no key (user.signingKey)"}
	}
	if literal, ok := strings.CutPrefix(key, "key::"); ok || strings.HasPrefix(key, "ssh-") {
		return sshByPublic([]byte(literal), "", r.signing.Passphrase)
	}
	file := expand(key)
	data, err := os.ReadFile(file)
	switch {
	case err != nil:
		return nil, &SigningError{Reason: "read the key: " + err.Error()}
	case bytes.Contains(data, []byte("BEGIN PGP PRIVATE KEY BLOCK")):
		return openPGP(data, r.signing.Passphrase)
	case bytes.Contains(data, []byte("PRIVATE KEY-----")):
		return sshByFile(file, r.signing.Passphrase)
	}
	return sshByPublic(data, strings.TrimSuffix(file, ".pub"), r.signing.Passphrase)
}

// readArmored reads user.signingKey, should it name a file.
func readArmored(name string) ([]byte, error) {
	if name == "" {
		return nil, fs.ErrNotExist
	}
	data, err := os.ReadFile(expand(name))
	if err == nil && !bytes.Contains(data, []byte("BEGIN PGP PRIVATE KEY BLOCK")) {
		err = errors.New("no OpenPGP private key")
	}
	return data, err
}

// expand is git's ~/ in a path.
func expand(name string) string {
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return name
}

func openPGP(data []byte, passphrase string) (signer, error) {
	ring, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(data))
	if err != nil {
		return nil, &SigningError{Reason: "read the OpenPGP key: " + err.Error()}
	}
	if len(ring) != 1 {
		return nil, &SigningError{Reason: fmt.Sprintf("the key file has %d keys, not one", len(ring))}
	}
	entity := ring[0]
	if entity.PrivateKey == nil {
		return nil, &SigningError{Reason: "the key file has no private key"}
	}
	if entity.PrivateKey.Encrypted {
		if err := entity.DecryptPrivateKeys([]byte(passphrase)); err != nil {
			return nil, &SigningError{Reason: "the OpenPGP key is locked", Advice: "set its passphrase in " + EnvSigningPassphrase}
		}
	}
	return func(payload []byte) (string, error) {
		var out bytes.Buffer
		// The time of the signature is the clock's, as gpg has it: a key is valid
		// now, and need not have been on the commit's date.
		if err := openpgp.ArmoredDetachSign(&out, entity, bytes.NewReader(payload), nil); err != nil {
			return "", &SigningError{Reason: err.Error()}
		}
		return out.String() + "\n", nil
	}, nil
}

func sshByFile(file, passphrase string) (signer, error) {
	key, err := readKey(file, passphrase)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, &SigningError{Reason: "the SSH key is locked", Advice: "set its passphrase in " + EnvSigningPassphrase + ", or name its public key, and add it to the SSH agent"}
	} else if err != nil {
		return nil, &SigningError{Reason: err.Error()}
	}
	return sshSigner(key), nil
}

// sshByPublic finds the private half of a public key: in the agent, or in the
// file beside it.
func sshByPublic(data []byte, private, passphrase string) (signer, error) {
	public, _, _, _, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		return nil, &SigningError{Reason: "the signing key is neither a private nor a public key: " + err.Error()}
	}
	if agent, err := gitssh.NewSSHAgentAuth("git"); err == nil {
		keys, err := agent.Callback()
		if err != nil {
			return nil, &SigningError{Reason: "ask SSH agent for keys: " + err.Error()}
		}
		for _, key := range keys {
			if bytes.Equal(key.PublicKey().Marshal(), public.Marshal()) {
				return sshSigner(key), nil
			}
		}
	}
	if private != "" {
		if _, err := os.Stat(private); err == nil {
			return sshByFile(private, passphrase)
		}
	}
	return nil, &SigningError{Reason: "the SSH agent does not have the key " + ssh.FingerprintSHA256(public), Advice: "add it with 'ssh-add', or name its private key with --signing-key"}
}

// sshSigner signs as 'ssh-keygen -Y sign -n git' does.
func sshSigner(key ssh.Signer) signer {
	return func(payload []byte) (string, error) {
		s, err := sshsig.Sign(bytes.NewReader(payload), key, sshsig.HashSHA512, "git")
		if err != nil {
			return "", &SigningError{Reason: err.Error()}
		}
		return string(sshsig.Armor(s)), nil
	}
}

// sign adds the signature to a commit.
func sign(c *object.Commit, with signer) error {
	if with == nil {
		return nil
	}
	plain := &plumbing.MemoryObject{}
	if err := c.EncodeWithoutSignature(plain); err != nil {
		return fmt.Errorf("encode commit: %w", err)
	}
	payload, err := plain.Reader()
	if err != nil {
		return fmt.Errorf("encode commit: %w", err)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(payload); err != nil {
		return fmt.Errorf("encode commit: %w", err)
	}
	c.PGPSignature, err = with(b.Bytes())
	return err
}

// setting returns a value of git's configuration, from the strongest scope that
// has it.
func setting(scopes []*config.Config, section, key string) string {
	for _, cfg := range scopes {
		if s := cfg.Raw.Section(section); s.HasOption(key) {
			return s.Option(key)
		}
	}
	return ""
}

func truth(value string) bool {
	switch strings.ToLower(value) {
	case "true", "yes", "on", "1":
		return true
	}
	return false
}
