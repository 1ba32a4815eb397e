// Package console is the command line: what a person types and sees. One struct per command is flags, environment and help; it turns
// them into the configuration of a service, runs it, and prints what comes of it, for people or, with --json, for programs.
package console
