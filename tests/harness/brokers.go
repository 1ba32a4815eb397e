package harness

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"spate/shared/kafka/intake"
	"spate/shared/testport"
	"spate/shared/testskip"
)

// OnBrokers runs a test on an in-process broker, and on the real one that SPATE_TEST_BROKERS names, one after the other.
func OnBrokers(t *testing.T, test func(t *testing.T, brokers string)) { onEach(t, false, test) }

// OnBrokersTogether is OnBrokers for tests that mostly wait: it runs both at once.
func OnBrokersTogether(t *testing.T, test func(t *testing.T, brokers string)) { onEach(t, true, test) }

func onEach(t *testing.T, together bool, test func(t *testing.T, brokers string)) {
	t.Run("kfake", func(t *testing.T) {
		if together {
			t.Parallel()
		}
		c, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		intake.Mend(c)
		test(t, strings.Join(c.ListenAddrs(), ","))
	})
	t.Run("kafka", func(t *testing.T) {
		if together {
			t.Parallel()
		}
		brokers := os.Getenv("SPATE_TEST_BROKERS")
		if brokers == "" {
			testskip.Missing(t, "SPATE_TEST_BROKERS does not name a Kafka")
		}
		test(t, brokers)
	})
}

// Broker is one that a test starts and ends as it likes. It is down at first, and keeps its data when it goes down.
type Broker struct {
	Addr string
	Dir  string // of its data; a real Kafka has its log there, broker.log
	Up   func()
	Down func() // as a crash, for a real Kafka
	// KeepsDead: a member that dies while it waits to join its group stays a member for ever, and has partitions. kfake gives a member
	// no session before the answer to its join has reached it.
	KeepsDead bool
}

// OnOwnBrokers runs a test on an in-process broker and on a real Kafka of its own, both at once.
func OnOwnBrokers(t *testing.T, test func(t *testing.T, b Broker)) {
	for name, own := range map[string]func(*testing.T) Broker{
		"kfake": func(t *testing.T) Broker { return OwnKfake(t) },
		"kafka": func(t *testing.T) Broker { return OwnKafka(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, own(t))
		})
	}
}

// OwnKfake is an in-process broker. Options beyond its port and its data are the test's.
func OwnKfake(t *testing.T, opts ...kfake.Opt) Broker {
	t.Helper()
	addr, dir := testport.Reserve(t), t.TempDir()
	var c *kfake.Cluster
	return Broker{Addr: addr, Dir: dir, KeepsDead: true, Up: func() {
		var err error
		if c, err = kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.Ports(PortOf(t, addr)), kfake.DataDir(dir)}, opts...)...); err != nil {
			t.Fatal(err)
		}
		intake.Mend(c)
	}, Down: func() { c.Close() }}
}

// OwnKafka is a real Kafka, by the scripts of the reference data. Properties, as key=value, override theirs.
func OwnKafka(t *testing.T, properties ...string) Broker {
	t.Helper()
	return KafkaWith(t, nil, func(string, string) []string { return properties })
}

// KafkaWith is [OwnKafka] with properties that depend on the addresses of the broker and of its controller, and with settings of its Java
// machine.
func KafkaWith(t *testing.T, java []string, properties func(addr, controller string) []string) Broker {
	t.Helper()
	up, down := SharedFile(t, "kafka/kafka-up"), SharedFile(t, "kafka/kafka-down")
	addr, controller, dir := testport.Reserve(t), testport.Reserve(t), t.TempDir()
	script := func(args ...string) error {
		cmd := exec.Command(args[0], args[1:]...)
		// It does not live long enough for the best code to be worth its making: that costs two seconds at each start.
		machine := append([]string{"-Xms256m", "-Xmx1g", "-XX:TieredStopAtLevel=1"}, java...)
		cmd.Env = append(os.Environ(), "KAFKA_CONTROLLER_PORT="+strconv.Itoa(PortOf(t, controller)), "KAFKA_HEAP="+strings.Join(machine, " "))
		// Not CombinedOutput: the broker inherits the pipe and keeps it open.
		log, err := os.Create(filepath.Join(dir, "script.log"))
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			b, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%v: %w: %s", args, err, b)
		}
		return nil
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { must(script(down, dir)) })
	return Broker{Addr: addr, Dir: dir, Up: func() {
		args := append([]string{up, strconv.Itoa(PortOf(t, addr)), dir}, properties(addr, controller)...)
		err := script(args...)
		// The script looks for the broker's command line, which is its own for a moment, and calls the broker dead then. A second call finds it.
		for range 2 {
			if err != nil {
				err = script(args...)
			}
		}
		must(err)
	}, Down: func() { must(script(down, dir, "-9")) }}
}

// PortOf returns the port of an address.
func PortOf(t *testing.T, addr string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
