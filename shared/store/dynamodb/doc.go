// Package dynamodb stores alerts in an Amazon DynamoDB table with the keys of the AWS walkthrough, and records which of them were published
// to an SNS topic.
//
// An alert is one item, and each change to it is one conditional write, so the resulting item does not depend on the number of writers or
// tries, or on the order of arrival. There are no transactions.
//
//	(nothing) ──opened──► opened ──raised──► raised ──closed──► closed        the alert, as package store has it
//
//	(none) ──to send──► pending ──published──► sent        attribute notification; absent is none
//
// The writer that is to publish an alert marks it as pending in the write that moves the alert, publishes it, and marks it as sent. A crash
// in between leaves it pending, and the next process that gets the record publishes it again: a message is repeated rather than lost. There is
// one message per alert, for the first record that qualifies.
//
// An alert of the rule without a rules file has the user and the window's start as its keys, so a table supports one window size for this rule:
// windows of different sizes that start together conflict. Alerts of other rules append digits of their ids to the window's start, so all alerts
// of a user, or of another key, are adjacent and in the order of time.
package dynamodb
