// Package dynamodb keeps alerts in an Amazon DynamoDB table with the original's keys, and which of them an SNS topic was told of.
//
// An alert is one item, and every change of it one conditional write, so that any number of writers, tries and orders of arrival give
// the same item; there are no transactions.
//
//	(nothing) ──opened──► opened ──closed──► closed        the alert, as package store has it
//	    └──────────────closed──────────────────┘
//
//	(none) ──told of──► pending ──published──► sent        attribute notification; absent is none
//
// Whoever is to tell of an alert makes it pending in the write that moves the alert, publishes, and notes it as sent. A crash in between
// leaves it pending, and whoever gets the record again publishes again: a message is repeated rather than lost, and there is one per
// alert, made by the first record that is to be told of.
//
// The keys are the user and the window's start, so one table is for windows of one size: another size is a conflict where windows start
// together.
package dynamodb
