// Package awstest starts AWS emulators for tests: kinesalite for Kinesis, dynalite for DynamoDB, with transactions in front of it, moto for S3, SNS,
// SQS and CloudFormation. Each is started once per test process, when it is first needed, and ends with that process, no matter how it ends.
//
// tests/emulators pins their versions. kinesalite and dynalite are looked up in its node_modules, or in the folder that SPATE_TEST_EMULATORS
// names; moto in the Python that SPATE_TEST_PYTHON names, or python3. Without them, a test is skipped, or fails if REQUIRE_INTEGRATION=1.
package awstest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"spate/shared/testport"
	"spate/shared/testskip"
)

// startTimeout is how long a stand-in may take to answer.
const startTimeout = 60 * time.Second

// server is a stand-in, once it is started.
type server struct {
	command func(root string, port int) (*exec.Cmd, error)

	once  sync.Once
	url   string
	err   error
	input io.WriteCloser // its standard input: it ends when that is closed
}

var (
	kinesalite = server{command: node("kinesalite", "--createStreamMs", "0", "--deleteStreamMs", "0", "--updateStreamMs", "0", "--shardLimit", "1000")}
	dynalite   = server{command: node("dynalite", "--host", "127.0.0.1", "--createTableMs", "0", "--deleteTableMs", "0", "--updateTableMs", "0")}
	moto       = server{command: python}
)

func node(name string, args ...string) func(string, int) (*exec.Cmd, error) {
	return func(root string, port int) (*exec.Cmd, error) {
		modules := os.Getenv("SPATE_TEST_EMULATORS")
		if modules == "" {
			modules = filepath.Join(root, "tests", "emulators", "node_modules")
		}
		cli := filepath.Join(modules, name, "cli.js")
		if _, err := os.Stat(cli); err != nil {
			return nil, fmt.Errorf("%s does not exist; run npm ci in tests/emulators, or set SPATE_TEST_EMULATORS to a node_modules directory that contains it: %w", name, err)
		}
		guard := filepath.Join(root, "tests", "emulators", "guard.js")
		return exec.Command("node", append([]string{"-r", guard, cli, "--port", fmt.Sprint(port)}, args...)...), nil
	}
}

func python(root string, port int) (*exec.Cmd, error) {
	python := os.Getenv("SPATE_TEST_PYTHON")
	if python == "" {
		python = "python3"
	}
	if out, err := exec.Command(python, "-c", "import moto.server, flask").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("moto is not installed; install tests/emulators/requirements.txt and set SPATE_TEST_PYTHON: %w: %s", err, out)
	}
	return exec.Command(python, filepath.Join(root, "tests", "emulators", "moto_server.py"), "-H", "127.0.0.1", "-p", fmt.Sprint(port)), nil
}

// start starts the stand-in, if it is not there, and returns its URL.
func (s *server) start(t testing.TB) string {
	t.Helper()
	s.once.Do(func() { s.url, s.err = s.run() })
	if s.err != nil {
		testskip.Missing(t, "%v", s.err)
	}
	return s.url
}

func (s *server) run() (string, error) {
	root, err := root()
	if err != nil {
		return "", err
	}
	port, _, err := testport.Hold() // as long as this process lives, as the stand-in does
	if err != nil {
		return "", err
	}
	cmd, err := s.command(root, port)
	if err != nil {
		return "", err
	}
	if s.input, err = cmd.StdinPipe(); err != nil {
		return "", err
	}
	log, err := os.CreateTemp("", "spate-emulator-*.log")
	if err != nil {
		return "", err
	}
	os.Remove(log.Name()) // it lives as long as it is open
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	deadline := time.Now().Add(startTimeout)
	for time.Now().Before(deadline) {
		select {
		case err := <-ended:
			_, _ = log.Seek(0, io.SeekStart)
			said, _ := io.ReadAll(log)
			return "", fmt.Errorf("%s exited during startup: %w: %s", strings.Join(cmd.Args, " "), err, said)
		case <-time.After(50 * time.Millisecond):
		}
		if resp, err := http.Get(url); err == nil {
			resp.Body.Close()
			return url, nil
		}
	}
	return "", fmt.Errorf("%s did not respond within %v", strings.Join(cmd.Args, " "), startTimeout)
}

// root is the project's folder: the one with go.mod above the test.
func root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod in the test's directory or above it")
		}
		dir = filepath.Dir(dir)
	}
}

// Kinesis starts kinesalite and returns its URL.
func Kinesis(t testing.TB) string { t.Helper(); return kinesalite.start(t) }

// DynamoDB starts dynalite, with what gives it transactions before it, and returns the URL.
func DynamoDB(t testing.TB) string {
	t.Helper()
	url := dynalite.start(t)
	transacting.once.Do(func() { transacting.url, transacting.err = newTransactions(url) })
	if transacting.err != nil {
		t.Fatal(transacting.err)
	}
	return transacting.url
}

// transacting is what stands before dynalite, once it is started.
var transacting struct {
	once sync.Once
	url  string
	err  error
}

// Moto starts moto and returns its URL.
func Moto(t testing.TB) string { t.Helper(); return moto.start(t) }

// Env starts all of them and returns the environment in which an AWS SDK uses them.
func Env(t testing.TB) []string {
	t.Helper()
	return []string{
		"AWS_ENDPOINT_URL=" + Moto(t),
		"AWS_ENDPOINT_URL_KINESIS=" + Kinesis(t),
		"AWS_ENDPOINT_URL_DYNAMODB=" + DynamoDB(t),
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_PROFILE=", "AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
	}
}

// Config is a configuration of which every service is at one URL, as those above return it.
func Config(url string) aws.Config {
	return aws.Config{
		Region:       "us-east-1",
		Credentials:  credentials.NewStaticCredentialsProvider("test", "test", ""),
		BaseEndpoint: aws.String(url),
	}
}

// Retryer repeats a call whose connection broke, as the SDK does by itself, and no other: what a service refuses is for the test to see. The SDK
// closes the body of a request once its answer has begun; net/http may still look for its end, and then closes the connection (aws/aws-sdk-go-v2 #2737).
func Retryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.Retryables = []retry.IsErrorRetryable{retry.RetryableConnectionError{}}
	})
}
