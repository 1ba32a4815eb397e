package email

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"mime/quotedprintable"
	"strings"
	"unicode/utf8"

	"spate/shared/notify"
	"spate/shared/notify/brief"
)

const (
	maxSubject = 150 // characters
	// maxWord is how many bytes one encoded word holds: with what is around its base64 it is not longer than the 75 characters of RFC 2047.
	maxWord = 42
)

// write writes a mail: headers, and text in quoted-printable, so that no line of an event is a line of the mail or ends it.
func (s *Sender) write(m notify.Message, b brief.Brief) ([]byte, error) {
	var out bytes.Buffer
	header := func(name, value string) { fmt.Fprintf(&out, "%s: %s\r\n", name, value) }
	var to []string
	for _, a := range s.to {
		to = append(to, a.String()) // encoded
	}
	// The subject stays the same in a thread, as mail programs expect that put messages of a thread together.
	subject := "[spate] " + brief.Cut(b.Title, maxSubject)
	if reply(b) {
		subject = "Re: " + subject
	}
	header("Date", m.At.UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	header("From", s.from.String())
	header("To", strings.Join(to, ",\r\n "))
	header("Subject", words(subject))
	header("Message-ID", s.messageID(m.ID))
	if reply(b) {
		first := s.messageID(b.ID + "_opened")
		header("In-Reply-To", first)
		header("References", first)
	}
	header("Auto-Submitted", "auto-generated") // RFC 3834: nobody is away from their desk to a program
	header("MIME-Version", "1.0")
	header("Content-Type", "text/plain; charset=utf-8")
	header("Content-Transfer-Encoding", "quoted-printable")
	out.WriteString("\r\n")
	w := quotedprintable.NewWriter(&out)
	if _, err := w.Write([]byte(text(b))); err != nil {
		return nil, fmt.Errorf("%w: it cannot be encoded", notify.ErrUnsendable)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("%w: it cannot be encoded", notify.ErrUnsendable)
	}
	return out.Bytes(), nil
}

// reply reports whether a message answers the first one about its subject.
func reply(b brief.Brief) bool { return b.Phase == brief.Grows || b.Phase == brief.Ends }

// text is what people read.
func text(b brief.Brief) string {
	var out strings.Builder
	line := func(parts ...string) { out.WriteString(strings.Join(parts, "") + "\r\n") }
	line(b.Headline())
	if b.Summary != "" {
		line()
		line(b.Summary)
	}
	line()
	for _, f := range b.Facts {
		line(f.Name, ": ", f.Text)
	}
	if len(b.Lines) > 0 {
		line()
	}
	for _, l := range b.Lines {
		line("* ", l)
	}
	if b.Runbook != "" || b.Link != "" {
		line()
	}
	if b.Runbook != "" {
		line("Runbook: ", b.Runbook)
	}
	if b.Link != "" {
		line("Dashboard: ", b.Link)
	}
	return out.String()
}

// messageID depends only on the message's id. An id that is not an atom as in RFC 5322 is hashed.
func (s *Sender) messageID(id string) string {
	const atom = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	if strings.Trim(id, atom) != "" || len(id) > 120 {
		sum := sha256.Sum256([]byte(id))
		id = hex.EncodeToString(sum[:16])
	}
	return "<" + id + "@" + domain(s.from) + ">"
}

// words is the value of a header: as it is if it is printable ASCII that is not taken for anything else, and in encoded words (RFC 2047) otherwise.
func words(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) && !strings.Contains(s, "=?") {
		return s
	}
	var out []string
	for len(s) > 0 {
		n := min(len(s), maxWord)
		for n < len(s) && n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		out, s = append(out, "=?utf-8?B?"+base64.StdEncoding.EncodeToString([]byte(s[:n]))+"?="), s[n:]
	}
	return strings.Join(out, "\r\n ")
}
