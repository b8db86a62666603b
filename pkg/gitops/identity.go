package gitops

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/config"
)

// Author returns who would commit: as Options or git's configuration say, else
// an AuthorError.
func (r *Repository) Author() (Signature, error) { return r.signature() }

// signature returns who commits, as Options or git's configuration say.
func (r *Repository) signature() (Signature, error) {
	s := r.author
	if s == (Signature{}) {
		scopes, err := r.backend.configuration()
		if err != nil {
			return s, err
		}
		s = configuredIdentity(scopes)
	}
	switch {
	case s.Name == "" && s.Email == "":
		return s, &AuthorError{Reason: "no name and no email address are set"}
	case s.Name == "":
		return s, &AuthorError{Reason: "no name is set"}
	case s.Email == "":
		return s, &AuthorError{Reason: "no email address is set"}
	case strings.ContainsAny(s.Name+s.Email, "<>\n\r\x00") || !utf8.ValidString(s.Name+s.Email):
		return s, &AuthorError{Reason: "the name or the email address has a character that git does not allow"}
	}
	return Signature{strings.TrimSpace(s.Name), strings.TrimSpace(s.Email)}, nil
}

// configuration is the repository's (may be nil), the user's and the system's, in
// this order. Files that they include are not read.
func configuration(repository *config.Config) ([]*config.Config, error) {
	scopes := []*config.Config{}
	if repository != nil {
		scopes = append(scopes, repository)
	}
	for _, scope := range []config.Scope{config.GlobalScope, config.SystemScope} {
		cfg, err := config.LoadConfig(scope)
		if err != nil {
			return nil, fmt.Errorf("read git configuration: %w", err)
		}
		scopes = append(scopes, cfg)
	}
	return scopes, nil
}

func configuredIdentity(scopes []*config.Config) Signature {
	var s Signature
	for _, cfg := range scopes {
		for _, name := range []string{cfg.Author.Name, cfg.User.Name} {
			if s.Name == "" {
				s.Name = name
			}
		}
		for _, email := range []string{cfg.Author.Email, cfg.User.Email} {
			if s.Email == "" {
				s.Email = email
			}
		}
	}
	return s
}
