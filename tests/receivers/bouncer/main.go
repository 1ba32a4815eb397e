// Command bouncer asks spate decide about one address, and then follows its decisions for some time, with CrowdSec's own library for bouncers. It is a
// separate module, which keeps that library out of the dependencies of spate.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	csbouncer "github.com/crowdsecurity/go-cs-bouncer"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: bouncer URL TOKEN IP DURATION")
		os.Exit(2)
	}
	if err := run(os.Args[1]+"/", os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "bouncer:", err)
		os.Exit(1)
	}
}

func run(url, token, ip, duration string) error {
	live := &csbouncer.LiveBouncer{APIKey: token, APIUrl: url}
	if err := live.Init(); err != nil {
		return err
	}
	found, err := live.Get(ip)
	if err != nil {
		return err
	}
	for _, d := range *found {
		fmt.Println("live", *d.Scope, *d.Value, *d.Type, *d.Scenario)
	}
	within, err := time.ParseDuration(duration)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	stream := &csbouncer.StreamBouncer{APIKey: token, APIUrl: url, TickerInterval: "1s"}
	if err := stream.Init(); err != nil {
		return err
	}
	go stream.Run(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-stream.Stream:
			for _, d := range s.New {
				fmt.Println("new", *d.Scope, *d.Value, *d.Type)
			}
			for _, d := range s.Deleted {
				fmt.Println("deleted", *d.Scope, *d.Value)
			}
		}
	}
}
