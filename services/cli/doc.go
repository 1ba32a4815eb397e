// Package cli implements the command line. Each command is a struct that defines its flags, environment variables and help; it turns them
// into the configuration of a service, runs the service, and prints the result for people or, with --json, for programs.
package cli
