package config

import (
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// Seal returns the document with every password in clear replaced by what sealer makes of it, and nothing else
// changed: comments and layout stay. sealer gets the password and returns the sealed text, with SealedPrefix or
// without. The text must be TOML; the error is a Problems or the sealer's.
func Seal(text string, sealer func(password string) (string, error)) (string, error) {
	r := newReader("cluster document", text)
	if err := r.problems.err(); err != nil {
		return "", err
	}
	secrets := r.root.secrets(nil)
	sortByOffset(secrets)
	var out strings.Builder
	done := uint32(0)
	for _, secret := range secrets {
		if secret.text == "" || strings.HasPrefix(secret.text, SealedPrefix) {
			continue
		}
		sealed, err := sealer(secret.text)
		if err != nil {
			return "", err
		}
		out.WriteString(text[done:secret.raw.Offset])
		out.WriteString(quote(SealedPrefix + strings.TrimPrefix(sealed, SealedPrefix)))
		done = secret.raw.Offset + secret.raw.Length
	}
	out.WriteString(text[done:])
	return out.String(), nil
}

// secrets returns the values of the keys named password below t.
func (t *table) secrets(found []*value) []*value {
	for _, key := range t.keys {
		entry := t.entries[key]
		if key == "password" && entry.value != nil && entry.value.kind == unstable.String {
			found = append(found, entry.value)
		}
		found = entry.secrets(found)
	}
	for _, element := range t.elements {
		found = element.secrets(found)
	}
	return found
}

func sortByOffset(values []*value) {
	slices.SortFunc(values, func(a, b *value) int { return int(a.raw.Offset) - int(b.raw.Offset) })
}
