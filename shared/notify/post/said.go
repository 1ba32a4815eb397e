package post

import (
	"html"
	"net/url"
	"strings"
	"unicode"
)

// maxSaid bounds what is kept of a response, bytes.
const maxSaid = 200

// withheld replaces a response that quotes what may be secret.
const withheld = "(the response quotes the URL or a secret, so it is not kept)"

// Quotes knows what a response must not quote.
type Quotes struct {
	runs  []string // of letters and digits, in small letters, a piece of which is too much
	whole []string // in small letters, of which only the whole is
}

// NewQuotes returns the Quotes for the secret parts of a URL, which may be nil, and for secrets.
func NewQuotes(u *url.URL, secrets ...string) Quotes {
	var q Quotes
	if u != nil {
		sources := []string{u.EscapedPath(), u.Path, u.RawQuery}
		if plain, err := url.QueryUnescape(u.RawQuery); err == nil {
			sources = append(sources, plain)
		}
		for _, s := range sources {
			for _, run := range runs(s) {
				if word := len(run) <= maxWord && strings.Trim(run, "abcdefghijklmnopqrstuvwxyz") == ""; !word {
					q.runs = append(q.runs, strings.ToLower(run))
				}
			}
		}
	}
	for _, s := range secrets {
		for _, run := range runs(s) {
			q.runs = append(q.runs, strings.ToLower(run))
		}
		if s != "" {
			q.whole = append(q.whole, strings.ToLower(s))
		}
	}
	return q
}

// runs returns the runs of letters and digits that are long enough to be recognized.
func runs(text string) (out []string) {
	for _, run := range strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		if len(run) >= pieceLength {
			out = append(out, run)
		}
	}
	return out
}

// Said returns the beginning of a response on one line. An error message may quote the URL, whose path and query are often secret, in any spelling,
// decoded or truncated: if the response contains a piece of it, nothing of the response is kept.
func (q Quotes) Said(body []byte) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(body), "\ufffd")), " ")
	if q.in(text) {
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

func (q Quotes) in(text string) bool {
	spellings := []string{text, html.UnescapeString(text)}
	if plain, err := url.QueryUnescape(text); err == nil {
		spellings = append(spellings, plain)
	}
	for _, t := range spellings {
		t = strings.ToLower(t)
		for _, secret := range q.whole {
			if strings.Contains(t, secret) {
				return true
			}
		}
		for _, secret := range q.runs {
			for i := 0; i+pieceLength <= len(secret); i++ {
				if strings.Contains(t, secret[i:i+pieceLength]) {
					return true
				}
			}
		}
	}
	return false
}
