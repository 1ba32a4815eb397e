package webhook

import (
	"html"
	"net/url"
	"strings"
	"unicode"
)

// maxSaid bounds what is kept of a response, bytes.
const maxSaid = 200

// withheld is in place of a response that quotes what may be secret.
const withheld = "(the response quotes the URL or a secret, and is not kept)"

// said returns the beginning of a response on one line. An endpoint that complains may quote the URL, whose path and query are often secret, in any spelling,
// decoded or cut: if a piece of it is in the response, nothing of the response is kept.
func (s *Sender) said(body []byte) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(body), "\ufffd")), " ")
	if s.quotedIn(text) {
		return withheld
	}
	if len(text) > maxSaid {
		text = strings.ToValidUTF8(text[:maxSaid], "") + "…"
	}
	return text
}

// pieceLength is how many letters and digits in a row, that are those of a secret too, are taken for a quotation. Shorter ones occur by chance.
const pieceLength = 6

// maxWord is how long a part of a URL may be to be taken for a word, such as services or webhook, if it has nothing but small letters.
const maxWord = 8

func (s *Sender) quotedIn(text string) bool {
	spellings := []string{text, html.UnescapeString(text)}
	if plain, err := url.QueryUnescape(text); err == nil {
		spellings = append(spellings, plain)
	}
	for i, t := range spellings {
		spellings[i] = strings.ToLower(t)
	}
	for _, secret := range s.quotable() {
		for i := 0; i+pieceLength <= len(secret); i++ {
			for _, t := range spellings {
				if strings.Contains(t, secret[i:i+pieceLength]) {
					return true
				}
			}
		}
	}
	return false
}

// quotable returns the runs of letters and digits that a response must not have, in small letters.
func (s *Sender) quotable() (out []string) {
	u := s.url()
	sources := []string{u.EscapedPath(), u.Path, u.RawQuery}
	if plain, err := url.QueryUnescape(u.RawQuery); err == nil {
		sources = append(sources, plain)
	}
	for _, secret := range s.secrets {
		sources = append(sources, secret.text())
	}
	for _, source := range sources {
		for _, run := range strings.FieldsFunc(source, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
			word := len(run) <= maxWord && strings.Trim(run, "abcdefghijklmnopqrstuvwxyz") == ""
			if len(run) >= pieceLength && !word {
				out = append(out, strings.ToLower(run))
			}
		}
	}
	return out
}
