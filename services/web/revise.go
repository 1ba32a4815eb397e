package web

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

type editView struct {
	Draft
	Faults []Fault
	Review *Review
	// Reviewed names the text that was reviewed: another one is not applied.
	Reviewed string
	// Refused says why the text is not applied.
	Refused string
}

// rulesPath is where the rules are changed.
const rulesPath = "/rules/edit"

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// edit changes the rules: a draft is reviewed, and applied as it was reviewed.
func (s *Server) edit(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), answerTime)
	defer cancel()
	v, applied, err := s.draft(ctx, r)
	if applied {
		s.hub.Changed()
		http.Redirect(w, r, "/rules?done=applied", http.StatusSeeOther)
		return
	}
	s.render(w, r, "edit", page{Title: "Change the rules", View: "rules", Data: v, Err: err})
}

func (s *Server) draft(ctx context.Context, r *http.Request) (v editView, applied bool, err error) {
	if s.cfg.Rules == nil {
		return v, false, errors.New("this console has no access to the rules log")
	}
	if err := r.ParseForm(); err != nil {
		return v, false, &badRequest{fmt.Errorf("the text cannot be read: %w", err)}
	}
	if r.Method != http.MethodPost {
		of := int64(-1)
		if text := r.FormValue("revision"); text != "" {
			if of, err = strconv.ParseInt(text, 10, 64); err != nil || of < 0 {
				return v, false, &badRequest{fmt.Errorf("revision: %.40q is not the number of a revision", text)}
			}
		}
		v.Draft, err = s.cfg.Rules.Draft(ctx, of)
		return v, false, err
	}
	base, err := strconv.ParseInt(r.PostFormValue("base"), 10, 64)
	if err != nil {
		return v, false, &badRequest{errors.New("base: missing; open this page again")}
	}
	v.Draft = Draft{Base: base, Text: text(strings.ReplaceAll(r.PostFormValue("text"), "\r\n", "\n")), Author: text(s.who(r, r.PostFormValue("by"))), Message: strings.TrimSpace(text(r.PostFormValue("message")))}
	if len([]rune(v.Message)) > maxText || len([]rune(v.Author)) > maxText {
		return v, false, &badRequest{fmt.Errorf("message, by: must be at most %d characters long", maxText)}
	}
	v.Reviewed = digest(v.Text)
	if r.PostFormValue("do") == "apply" {
		switch r.PostFormValue("reviewed") {
		case v.Reviewed:
			_, err := s.cfg.Rules.Apply(ctx, v.Draft)
			return v, err == nil, err
		case "":
			v.Refused = "Nothing was applied: review the text first."
		default:
			v.Refused = "The text has changed since it was reviewed, so nothing was applied. Review it again."
		}
	}
	review, err := s.cfg.Rules.Review(ctx, v.Draft)
	v.Faults = review.Faults
	if err == nil && len(v.Faults) == 0 {
		v.Review = &review
	}
	return v, false, err
}
