package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"spate/shared/ops"
	"spate/shared/terminal"
)

type healthCommand struct {
	URL  string `arg:"" optional:"" name:"url" help:"Address of the service: http://host:port or host:port. Default: the value of --http."`
	HTTP string `name:"http" env:"SPATE_HTTP" placeholder:"HOST:PORT" help:"Address of the service, as in the service's own --http; for 0.0.0.0:8080 and :8080, 127.0.0.1:8080 is used."`
	tokenFlags
	HTTPTLSCertFile string        `name:"http-tls-cert-file" env:"SPATE_HTTP_TLS_CERT_FILE" placeholder:"FILE" help:"Certificate (PEM) that the service uses, as in the service's own settings. If set, spate health connects with TLS and accepts only this certificate, under any host name."`
	Live            bool          `name:"live" help:"Query /healthz (the process responds) instead of /readyz (the service is ready)."`
	Wait            time.Duration `name:"timeout" default:"3s" help:"How long to wait for a response."`
}

// Help is shown below the usage.
func (healthCommand) Help() string {
	return `Prints the service's status, such as {"router":"ready"}, or what the service is waiting for. The exit code is 0 if the service is ready, and 1 if it is not ready or
does not respond. Container health checks need no other program:

  spate health                   the service in this container, at SPATE_HTTP
  spate health 127.0.0.1:18081   any service
  spate health --live            whether the service responds, ready or not

A service is not ready while its broker is unavailable, and restarting the service does not help. Use --live for checks that trigger restarts.`
}

func (c *healthCommand) Run(e *env) error {
	target, err := c.target()
	if err != nil {
		return usage(err)
	}
	req, err := http.NewRequestWithContext(e.ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return usage(err)
	}
	// What is asked is close by: no proxy, and an answer that points elsewhere is not the service's.
	asker := ops.Asker{CertFile: c.HTTPTLSCertFile, Access: c.access()}
	client, err := asker.Client()
	if err == nil && !c.Live { // that needs no token
		err = asker.Sign(req)
	}
	if err != nil {
		return usage(err)
	}
	client.Timeout = c.Wait
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("get %s: %w", target, err)
	}
	terminal.Fprintf(e.stdout, "%s\n", bytes.TrimSpace(body))
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", target, res.Status)
	}
	return nil
}

// target is what to ask, by the argument or else by the address that the service listens on.
func (c *healthCommand) target() (string, error) {
	page := "/readyz"
	if c.Live {
		page = "/healthz"
	}
	if c.Wait <= 0 {
		return "", fmt.Errorf("timeout: %v is not positive", c.Wait)
	}
	address := c.URL
	if strings.Contains(address, "://") {
		u, err := url.Parse(address)
		if err == nil && u.User != nil {
			return "", errors.New("url: must not contain a user name or password (not shown, as it may hold a password)")
		}
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return "", fmt.Errorf("url: %q is not http://host:port", c.URL)
		}
		if u.Path == "" || u.Path == "/" {
			u.Path = page
		}
		return u.String(), nil
	}
	if address == "" {
		address = c.HTTP
	}
	if address == "" {
		return "", errors.New("url: missing; give the service's address, as in spate health 127.0.0.1:8080, or set SPATE_HTTP to the service's value")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("address: %q is not host:port", address)
	}
	if port == "0" || port == "" {
		return "", fmt.Errorf("address: %q has no usable port; use the port that the service picked and logged", address)
	}
	// An address that means all interfaces is one to listen on, not one to ask.
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	scheme := "http://"
	if c.HTTPTLSCertFile != "" {
		scheme = "https://"
	}
	return scheme + net.JoinHostPort(host, port) + page, nil
}
