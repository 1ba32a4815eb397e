// Command spate detects bursts in a stream of events as they happen. See README.md, or run it without arguments.
package main

import (
	"os"

	"spate/services/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr)) }
