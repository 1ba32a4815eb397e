package slack

import (
	"strings"
	"unicode/utf16"

	"spate/shared/alert"
	"spate/shared/notify/brief"
)

// Slack's documented limits, in characters and elements. Ours are below them: Slack also refuses messages whose blocks are too long taken together
// (msg_blocks_too_long), at some 13,000 characters, and nobody reads as much.
const (
	maxSection = 3000 // text of a section
	maxFields  = 10   // fields of a section, each of up to 2,000 characters

	maxTitle   = 600
	maxSummary = 1500
	maxField   = 200
	maxLine    = 200
	maxURL     = 1000
)

type (
	message struct {
		Channel string `json:"channel,omitempty"`
		TS      string `json:"ts,omitempty"`
		// Text is what notifications and screen readers tell.
		Text   string  `json:"text"`
		Blocks []block `json:"blocks"`
		// Text of events makes no previews, no links and no mentions. chat.update, unlike chat.postMessage, looks for them by default.
		UnfurlLinks bool   `json:"unfurl_links"`
		UnfurlMedia bool   `json:"unfurl_media"`
		Parse       string `json:"parse"`
		LinkNames   bool   `json:"link_names"`
	}
	block struct {
		Type     string `json:"type"`
		Text     *text  `json:"text,omitempty"`
		Fields   []text `json:"fields,omitempty"`
		Elements []text `json:"elements,omitempty"`
	}
	text struct {
		Type     string `json:"type"`
		Text     string `json:"text"`
		Verbatim bool   `json:"verbatim"`
	}
)

func mrkdwn(s string) text { return text{Type: "mrkdwn", Text: s, Verbatim: true} }

// page lays out a message, for a channel and in place of what has the time ts, unless these are empty.
func page(b brief.Brief, channel, ts string) message {
	head := mark(b) + " *" + escape(b.Status, maxField) + "*  " + escape(b.Title, maxTitle)
	m := message{Channel: channel, TS: ts, Text: escape(b.Headline(), maxTitle), Parse: "none"}
	if b.Summary != "" {
		head += "\n" + escape(b.Summary, maxSummary)
		m.Text += "\n" + escape(b.Summary, maxSummary)
	}
	section := mrkdwn(head)
	m.Blocks = append(m.Blocks, block{Type: "section", Text: &section})
	var fields []text
	for _, f := range b.Facts {
		fields = append(fields, mrkdwn("*"+escape(f.Name, maxField/2)+"*\n"+escape(f.Text, maxField)))
	}
	for len(fields) > 0 {
		n := min(len(fields), maxFields)
		m.Blocks, fields = append(m.Blocks, block{Type: "section", Fields: fields[:n]}), fields[n:]
	}
	var lines []string
	for _, line := range b.Lines {
		lines = append(lines, "• "+escape(line, maxLine))
	}
	if len(lines) > 0 {
		section := mrkdwn(strings.Join(lines, "\n"))
		m.Blocks = append(m.Blocks, block{Type: "section", Text: &section})
	}
	var links []string
	for _, l := range []struct{ url, name string }{{b.Runbook, "Runbook"}, {b.Link, "Dashboard"}} {
		if l.url != "" && len(l.url) <= maxURL {
			links = append(links, "<"+linkable.Replace(l.url)+"|"+l.name+">")
		}
	}
	if len(links) > 0 {
		m.Blocks = append(m.Blocks, block{Type: "context", Elements: []text{mrkdwn(strings.Join(links, "  "))}})
	}
	return m
}

// mark is an emoji.
func mark(b brief.Brief) string {
	switch {
	case b.Kind == brief.Test:
		return ":wave:"
	case b.Phase == brief.Ends:
		return ":white_check_mark:"
	case b.Severity == alert.Critical:
		return ":red_circle:"
	}
	return ":large_orange_circle:"
}

// linkable writes a URL in a link, where | and > end it.
var linkable = strings.NewReplacer("&", "&amp;", "<", "%3C", ">", "%3E", "|", "%7C")

// entities are the only characters that Slack wants escaped: they begin mentions and links.
var entities = map[rune]string{'&': "&amp;", '<': "&lt;", '>': "&gt;"}

// escape returns a text as Slack wants it, up to limit characters with its escapes, none of which is cut.
func escape(s string, limit int) string {
	var b strings.Builder
	n, end := 0, 0 // end is where … could follow
	for _, r := range s {
		as, ok := entities[r]
		if !ok {
			as = string(r)
		}
		if n <= limit-1 {
			end = b.Len()
		}
		if n += len(utf16.Encode([]rune(as))); n > limit {
			return b.String()[:end] + "…"
		}
		b.WriteString(as)
	}
	return b.String()
}
