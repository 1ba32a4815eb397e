// Package dynamodb stores alerts and incidents in an Amazon DynamoDB table with the keys of the AWS walkthrough, records which messages about them were
// published to an SNS topic, and keeps the ledger of messages to other endpoints.
//
// # Alerts
//
// An alert is one item. A record that moves it forward is read first, then written in one transaction together with its incident, on the condition that
// the alert is as it was read; if another writer was faster, it is read again. So the result of a set of records does not depend on the number of writers or
// tries, and the result of an alert does not depend on the order of arrival.
//
//	(nothing) ──opened──► opened ──raised──► raised ──closed──► closed        as package store has it
//
// An alert of the rule without a rules file has the user and the window's start as its keys, so a table supports one window size for this rule:
// windows of different sizes that start together conflict. Alerts of other rules append digits of their ids to the window's start, so all alerts
// of a user, or of another key, are adjacent and in the order of time.
//
// # Incidents
//
// Incidents have partitions of their own, one for each rule, mode and key, so a query of a user's partition returns alerts only. Items that are not alerts
// have no attribute id, so older readers skip them.
//
//	incident#RULE#MODE#KEY#appserver#SERVER   start of the window that opened it + digits of its id    an incident
//	                                          headSort                                                 the partition's head
//	open#0..7#appserver#SERVER                digits of an incident's id                               where an open incident is, and when it ends at the earliest
//	silences#appserver#SERVER                 its end + digits of its id                               a silence
//	decisions#appserver#SERVER                when it was written + digits                             a decision, or the end of one
//	alerter#STREAM#SHARD#appserver#SERVER     0                                                        how far a shard is stored
//
// A transaction has up to five writes, and those of the ledger:
//
//	alert      if it is as it was read     its state; its incident, and how many events it has added to the incident
//	head       if it has the version read  version + 1
//	incident                               the new state from package incident, and the messages to publish
//	open                                   if the incident is new
//	decision                               if the record makes one
//
// The head is what makes this exact. It is read before the incidents, and everybody who changes an incident of the key moves its version on. Two writers who both find no
// incident that is near would otherwise both open one, in different items, and no condition on these would fail. The head also says how far before and after
// its sort key an incident of the key reaches at most, so what may be near is found with one query. If it is missing, all incidents of the key are read: the time to live
// deletes in no order.
//
// Records whose window is unknown ([Config.Arrived]: rows of Flink's job) are not part of an incident. Each has its own message, and the attribute notification with
// these states, as have alerts that were stored before incidents existed:
//
//	(none) ──to send──► pending ──published──► sent        absent: none
//
// # Messages to the topic
//
// The transaction that makes a transition puts its message into the incident (attribute untold_TRANSITION). The alerter that gets the record, or a repetition of it, publishes the
// messages that are there, and removes them. A crash in between repeats a message under the same id and does not lose it.
//
// # The ledger
//
// Messages to endpoints other than the topic are deliveries, as in store.Deliveries. The transaction that makes a transition writes its message once and, for each endpoint, a
// delivery and an item that makes it due. So a message is queued if and only if the transition happened.
//
//	delivery#SUBJECT            digits                                the deliveries, messages and tries about an alert or an incident, or of a digest or a test
//	due#ENDPOINT#0..3           when it is due + digits               a delivery that is pending
//	undelivered#ENDPOINT        when it was made + digits             a delivery that is exhausted or disabled
//	minute#ENDPOINT             the minute                            how many of its messages were sent alone
//	held#DIGEST                 digits                                up to 45 messages that are held for a digest
//	endpoints#                  digits                                the endpoints: their configuration, whether they are disabled, and the newest test
//
// All partition keys end with #appserver#SERVER. A delivery has a number that each change moves on, and every change is conditional on the number that was read. A
// delivery that is pending has one due item, at the time in the delivery; every transaction that moves the time moves the item.
//
//	due ──claim──► claimed ──recorded──► deleted, or put anew at the next time
//	 ▲                │
//	 └──released──────┤  it has to wait, or failed to run
//	 └──expired───────┘  whoever claimed it is gone: after 45 s
//
// A claim is a conditional write of the due item. The item has a time before which nobody takes it: a claim sets it to its own end, a release to when the delivery should be looked at
// again. The clocks of processes may differ by 5 s, which is how much longer a claim is than a delivery may take. Whoever has lost a claim can neither release the item nor delete it, for both are conditional on the claim.
//
// Flood control is decided when a message is due, not when it is stored: a count in the transaction of the alert would be one item that thousands of writers contend for. A message that counts is due like
// any other, with its endpoint's limit. Whoever finds it lets as many messages of its minute be sent alone as the limit allows, in a transaction with the minute's
// count, and moves the rest into the minute's digest, many in one transaction, which fails if the digest is sealed. Making a digest seals it first: what comes later goes into the next minute's. So each message is
// sent alone or is in one digest, whoever decides and whatever crashes.
//
// # Decisions
//
// A record that moves its alert writes its decision in the same transaction, so a repetition writes none and cannot prolong a decision that was ended. Decisions are only
// appended, and they expire; package decision/table follows them.
//
// # Ends
//
// [Table.Resolve] looks through the index of open incidents for those that are over, not through the table. What the index says may be too early, as windows that
// follow are not noted in it, and is corrected then; it is never too late. An incident leaves the index when its last message is told.
// So that it does not expire before its end is told, an incident that is open is kept for a month longer than others.
package dynamodb
