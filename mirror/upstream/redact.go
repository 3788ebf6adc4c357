package upstream

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText bounds what an upstream's text adds to an error, in bytes.
const maxText = 200

// redactURL gives a URL for people: without user, query and fragment, since
// redirects carry signatures there.
func redactURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// sanitise makes text from an upstream fit for logs and errors: one line of
// printable characters, at most maxText bytes, without the query of any URL and
// without the secrets given, should the upstream have echoed them.
func sanitise(text string, secrets ...string) string {
	// Before, since cleaning may shorten a secret that is no longer
	// recognised then; after, since it may join what was kept apart.
	text = oneLine(blank(text, secrets))
	text = blank(text, secrets)
	for i := range text {
		if i+utf8.UTFMax > maxText {
			return text[:i]
		}
	}
	return text
}

// blank replaces secrets in text, but for those so short that they would blank
// out half of it.
func blank(text string, secrets []string) string {
	for _, secret := range secrets {
		if len(secret) >= 4 {
			text = strings.ReplaceAll(text, secret, "[redacted]")
		}
	}
	return text
}

// oneLine gives the printable characters of text, runs of white space as one
// space, and of every query only its question mark.
func oneLine(text string) string {
	var b strings.Builder
	query, space := false, false
	for _, r := range text {
		switch {
		case unicode.IsSpace(r):
			query, space = false, b.Len() > 0
			continue
		case query && !strings.ContainsRune(`"'<>)]},;`, r):
			continue
		case !unicode.IsPrint(r) || r == utf8.RuneError:
			continue
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
		query = r == '?'
	}
	return b.String()
}

// secretsOf are the parts of a request that must not be repeated.
func secretsOf(ep *endpoint, w way, authorization string) []string {
	_, value, _ := strings.Cut(authorization, " ")
	return append(append(ep.cred.secrets(), w.secrets...), value)
}
