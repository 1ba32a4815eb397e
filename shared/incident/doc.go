// Package incident defines the incident: the run of alerts of one rule and key whose windows follow each other closely. One attacker who goes on
// for an hour is one incident, however many windows that takes. The package does no I/O: it defines the identity of incidents, their states, and
// the fold that turns changes of alerts into changes of incidents. The store keeps them.
//
//	alerts of one rule and key      ▇▇ ▇▇ ▇▇    ▇▇            ▇▇ ▇▇
//	                                └ gaps ≤ quiet ┘          └────┘
//	incidents                       opened ── escalated ─ resolved  opened ── …
//
// # What an incident is
//
// A window belongs to the open incident of its rule and key if the time between them is at most quiet; of two such incidents, to the one that began
// first. If there is none, the window opens a new incident. Quiet is one minute unless the rule says otherwise. The id of an incident is a function of
// the window that opened it ([ID]). An incident is resolved when event time, the watermark up to which every alert is stored, has passed every window
// that could belong to it. A resolved incident takes no further windows; counts that a window in its span reports later are added to its totals.
//
// Alerts of a rule and key are in one partition of their topic, in order, and only a record that changes its alert changes an incident. So the
// incidents are a function of the topic, regardless of who reads it, in which batches, and how often. The exceptions are windows that arrive after the
// end of the incident to which they would have belonged: because all of the input was silent and event time had advanced with the wall clock, or
// because a revision of the rule made windows longer.
package incident
