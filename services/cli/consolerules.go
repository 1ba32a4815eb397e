package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"spate/services/query"
	"spate/services/web"
	"spate/shared/revision"
	"spate/shared/rule"
	"spate/shared/rule/syntax"
)

// List implements web.Rules.
func (p *consoleParts) List(ctx context.Context) (rules []web.Rule, revisions []web.Revision, err error) {
	a, done, err := p.asker(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	plan, now := a.Plan(), time.Now()
	listed, set := slices.Concat(a.ending(now), a.InForce()), a.rulesLog.initial
	if len(a.Entries()) == 0 {
		listed = set.Rules
	} else if newest, ok := a.Newest(); ok {
		set = newest.Set
	}
	for _, r := range listed {
		early, _ := r.Early()
		w := web.Rule{Name: r.Name, Mode: string(r.Mode), Window: r.Window.String(), Key: []string{}, Text: r.Text, Early: early, Memory: memoryText(set.Cost(r))}
		if i := slices.Index(plan.Rules, r); i >= 0 {
			w.Since = plan.Since[i]
		}
		if w.Since == 0 {
			w.Text = p.initial.source().Text
		}
		if r.Window.From > 0 {
			w.From = time.UnixMilli(r.Window.From).UTC()
			if first, ok := r.Window.First(r.Window.From); ok {
				w.First = time.UnixMilli(first).UTC()
			}
		}
		if r.Window.Until > 0 {
			w.Until, w.Ends = time.UnixMilli(r.Window.Until).UTC(), time.UnixMilli(lastEnd(r)).UTC()
		}
		for _, k := range r.Keys {
			w.Key = append(w.Key, k.Name)
		}
		rules = append(rules, w)
	}
	for _, e := range slices.Backward(a.Entries()) {
		revisions = append(revisions, web.Revision{N: e.Revision, At: time.UnixMilli(e.AtMS).UTC(), Author: e.Author, Message: e.Message, InForce: a.wasInForce(e, now), Text: e.Text})
	}
	return rules, revisions, nil
}

// Save implements web.Rules.
func (p *consoleParts) Save(ctx context.Context, text, by string) (int64, error) {
	l, err := p.rules(ctx) // its own: it writes
	if err != nil {
		return 0, err
	}
	defer l.Close()
	base, before := p.initial.source(), l.initial.Rules
	if l.Revision() > 0 {
		newest, err := l.newest()
		if err != nil {
			return 0, err
		}
		base, before = newest.Source, newest.Set.Rules
	}
	if declares(text) {
		return 0, web.BadRequest(errors.New("the text contains CREATE TABLE, but rules from the studio use the pipeline's tables; remove CREATE TABLE, or change the rules on the Rules page"))
	}
	base.Text, base.Name = namedText(base), ""
	addition, stem := "-- mode: shadow\n"+strings.TrimSpace(inserting(text))+"\n", strings.TrimRight(base.Text, " \t\r\n")
	var set *rule.Set
	for _, between := range []string{"\n\n", "\n;\n\n"} { // whether the last statement has its semicolon
		base.Text = stem + between + addition
		if set, err = base.Compile(l.Inputs()); err == nil {
			break
		}
	}
	if err != nil {
		return 0, web.BadRequest(fmt.Errorf("the rule is not compatible with the rules in force: %w", err))
	}
	for _, c := range compareRules(before, set.Rules) {
		switch {
		case c.Change == added && c.Mode != rule.Shadow:
			return 0, web.BadRequest(fmt.Errorf("rule %s has the mode %s; the studio saves rules only in shadow mode, so remove the mode directive", c.Name, c.Mode))
		case c.Change != added && c.Change != unchanged:
			return 0, web.BadRequest(fmt.Errorf("the text changes rule %s, which is in force; use another name and remove CREATE TABLE, or change the rules on the Rules page", c.Name))
		}
	}
	rec, err := l.record(ctx, base, set, studioFile, p.lateness, p.maxAhead, p.events.Fields.Time)
	if err != nil {
		return 0, ofVisitor(err)
	}
	rec.Author, rec.Message = by, "saved in the studio"
	return p.append(ctx, l, rec)
}

// append writes the next revision.
func (p *consoleParts) append(ctx context.Context, l *rulesLog, rec revision.Record) (int64, error) {
	if err := (reviseFlags{}).place(ctx, l, &rec, time.Now()); err != nil {
		return 0, ofVisitor(err)
	}
	rec.Program = version()
	entry, err := l.Append(context.WithoutCancel(ctx), rec) // whether it is in force has to be told
	if errors.Is(err, revision.ErrLate) {
		p.log.Warn("a revision of the rules was written too late for its boundary", "revision", entry.Revision, "error", err)
		err = nil
	}
	p.mu.Lock()
	p.looked = time.Now().Add(-fresh)
	p.mu.Unlock()
	return entry.Revision, err
}

// Draft implements web.Rules.
func (p *consoleParts) Draft(ctx context.Context, of int64) (d web.Draft, err error) {
	a, done, err := p.asker(ctx)
	if err != nil {
		return d, err
	}
	defer done()
	d.Base = a.Revision()
	if of < 0 {
		of = d.Base
	}
	source := p.initial.source()
	if of > 0 {
		entry, err := a.entry(of)
		if err != nil {
			return d, web.BadRequest(err)
		}
		source = entry.Source
	}
	if of < d.Base {
		d.Message = "back to " + revisionName(of)
	}
	d.Text, err = withParams(source)
	return d, err
}

func revisionName(n int64) string {
	if n == 0 {
		return "the rule from the settings"
	}
	return fmt.Sprintf("revision %d", n)
}

// namedText is the text of a source with the name of its rule.
func namedText(s revision.Source) string {
	if s.Name == "" {
		return s.Text
	}
	return "-- rule: " + s.Name + "\n" + s.Text
}

// withParams is the text of a source that says by itself what the values of its parameters are, and the name of its rule.
func withParams(s revision.Source) (string, error) {
	set, errs := rule.Compile(s.Text, rule.Options{Name: s.Name, Set: s.Set, Tables: []*rule.Table{rule.Activity()}})
	if len(errs) > 0 {
		return namedText(s), nil
	}
	var params []syntax.Param
	for _, r := range set.Rules {
		params = append(params, r.Params...)
	}
	slices.SortFunc(params, func(a, b syntax.Param) int { return cmp.Compare(b.Pos, a.Pos) })
	for _, param := range params { // the last one first, so that the places of the others stay
		if strings.ContainsAny(param.Value, "\r\n") {
			return "", fmt.Errorf("the value of parameter %s contains a line break, which a rules file cannot express; change these rules with spate rules apply", param.Name)
		}
		declared := s.Text[param.Pos:]
		if end := strings.IndexByte(declared, '\n'); end >= 0 {
			declared = declared[:end]
		}
		if name, _, ok := strings.Cut(declared, "="); ok {
			s.Text = s.Text[:param.Pos] + strings.TrimRight(name, " ") + " = " + param.Value + s.Text[int(param.Pos)+len(declared):]
		}
	}
	return namedText(s), nil
}

// revision is what a draft would be.
func (p *consoleParts) revision(ctx context.Context, l *rulesLog, d web.Draft) (rec revision.Record, faults []web.Fault, err error) {
	if u := l.Unreadable(); u != nil {
		return rec, nil, u
	}
	if l.Revision() != d.Base {
		return rec, nil, web.BadRequest(fmt.Errorf("someone applied revision %d in the meantime; copy your text, and open this page again", l.Revision()))
	}
	if faults = p.Check(ctx, d.Text); len(faults) > 0 {
		return rec, faults, nil
	}
	source := revision.Source{Text: d.Text}
	set, err := source.Compile(l.Inputs())
	if err == nil {
		rec, err = l.record(ctx, source, set, "the text", p.lateness, p.maxAhead, p.events.Fields.Time)
	} else {
		err = web.BadRequest(err)
	}
	rec.Author, rec.Message = d.Author, d.Message
	return rec, nil, ofVisitor(err)
}

// Review implements web.Rules.
func (p *consoleParts) Review(ctx context.Context, d web.Draft) (v web.Review, err error) {
	l, err := p.rules(ctx)
	if err != nil {
		return v, err
	}
	defer l.Close()
	rec, faults, err := p.revision(ctx, l, d)
	if err != nil || len(faults) > 0 {
		v.Faults = faults
		return v, err
	}
	now, was := time.Now(), p.initial.source()
	if newest, ok := l.Newest(); ok {
		was = newest.Source
	}
	if err := (reviseFlags{}).place(ctx, l, &rec, now); err != nil {
		return v, ofVisitor(err)
	}
	next, err := l.With(now.UnixMilli(), rec)
	if err != nil {
		return v, web.BadRequest(err)
	}
	before, err := withParams(was)
	if err != nil {
		return v, web.BadRequest(err)
	}
	entry, _ := next.Newest()
	r := revised{LatenessMS: rec.LatenessMS, MaxAheadMS: rec.MaxAheadMS, Rules: compareRules(l.rulesBefore(len(l.Entries())), entry.Set.Rules)}
	v = web.Review{Same: before == d.Text, Revision: entry.Revision, InForce: "The revision would be in force " + inForce(entry, now), Summary: tallyText(r.Rules), Notes: l.consequences(entry, r), Diff: unified(revisionName(d.Base), revisionName(entry.Revision), before, d.Text)}
	for _, c := range r.Rules {
		change := web.RuleChange{Name: c.Name, Change: c.Change, Mode: string(c.Mode), Window: c.Window, Key: c.Key}
		for _, part := range c.Changes {
			change.Parts = append(change.Parts, string(changeText(part, " ")))
		}
		v.Rules = append(v.Rules, change)
	}
	for line := range strings.Lines(string(firstWindows(entry, r.Rules, now))) {
		v.Notes = append(v.Notes, strings.TrimSpace(line))
	}
	return v, nil
}

// Apply implements web.Rules.
func (p *consoleParts) Apply(ctx context.Context, d web.Draft) (int64, error) {
	l, err := p.rules(ctx) // its own: it writes
	if err != nil {
		return 0, err
	}
	defer l.Close()
	rec, faults, err := p.revision(ctx, l, d)
	if err != nil {
		return 0, err
	}
	if len(faults) > 0 {
		return 0, web.BadRequest(errors.New(faults[0].Shown))
	}
	return p.append(ctx, l, rec)
}

// Check implements web.Rules.
func (p *consoleParts) Check(ctx context.Context, text string) (faults []web.Fault) {
	if !inserts(text) {
		if !query.IsRule(text) || p.kafka == nil {
			return nil // SQL over the log, which is checked when it runs
		}
		db, err := p.database(ctx, 0)
		if err != nil {
			return nil // whoever runs it is told
		}
		defer func() { _ = db.Close() }()
		var wrong *query.Error
		if errors.As(db.Check(text), &wrong) {
			line, column := syntax.LineColumn(text, syntax.Pos(max(wrong.Pos, 0)))
			return []web.Fault{{Line: line, Column: column, Text: wrong.Message, Shown: wrong.Format()}}
		}
		return nil
	}
	_, errs := rule.Compile(text, rule.Options{Name: studioFile, Tables: p.tables(ctx)})
	for _, err := range errs {
		line, column := syntax.LineColumn(text, err.Pos)
		faults = append(faults, web.Fault{Line: line, Column: column, Text: err.Message, Shown: err.Format(studioFile, text)})
	}
	return faults
}

// IsRule implements web.Rules.
func (p *consoleParts) IsRule(text string) bool { return inserts(text) || query.IsRule(text) }

// tables are those that a rule can read: the ones that the rules in force declare, and the built-in one.
func (p *consoleParts) tables(ctx context.Context) (list []*rule.Table) {
	if a, done, err := p.asker(ctx); err == nil {
		defer done()
		if newest, ok := a.Newest(); ok && a.Unreadable() == nil {
			for _, r := range newest.Set.Rules {
				if !slices.ContainsFunc(list, func(t *rule.Table) bool { return t.Name == r.Table.Name }) {
					list = append(list, r.Table)
				}
			}
		}
	}
	if builtIn := rule.Activity(); !slices.ContainsFunc(list, func(t *rule.Table) bool { return t.Name == builtIn.Name }) {
		list = append(list, builtIn)
	}
	return list
}

// Example implements web.Rules.
func (p *consoleParts) Example(ctx context.Context) string {
	a, done, err := p.asker(ctx)
	if err != nil {
		return ""
	}
	defer done()
	for _, r := range a.InForce() {
		if len(r.Keys) == 1 && r.Keys[0].IsColumn() && r.Table.Time >= 0 {
			key, at := "`"+r.Keys[0].Name+"`", "`"+r.Table.Columns[r.Table.Time].Name+"`"
			return fmt.Sprintf("SELECT %s, COUNT(*) AS events\nFROM `%s`\nGROUP BY %s, TUMBLE(%s, INTERVAL '10' SECOND)\nHAVING COUNT(*) > 5", key, r.Table.Name, key, at)
		}
	}
	return ""
}

// declares reports whether a text has a CREATE TABLE.
func declares(text string) bool {
	for line := range strings.Lines(text) {
		if word, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " "); word == "CREATE" {
			return true
		}
	}
	return false
}

// inserts reports whether a text has a rule as a rules file has it, and not only its SELECT.
func inserts(text string) bool {
	for line := range strings.Lines(text) {
		if word, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " "); word == "INSERT" || word == "CREATE" {
			return true
		}
	}
	return false
}

// inserting makes a SELECT a rule of a rules file. Its directives stay before it.
func inserting(text string) string {
	if inserts(text) {
		return text
	}
	at := 0
	for line := range strings.Lines(text) {
		if plain := strings.TrimSpace(line); plain != "" && !strings.HasPrefix(plain, "--") {
			break
		}
		at += len(line)
	}
	return text[:at] + "INSERT INTO alerts\n" + text[at:]
}
