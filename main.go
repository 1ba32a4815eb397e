// Command spate finds bursts in a stream of events while they happen. See README.md, or run it without arguments.
package main

import (
	"os"

	"spate/services/console"
)

func main() { os.Exit(console.Main(os.Args[1:], os.Stdout, os.Stderr)) }
