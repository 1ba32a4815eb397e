package containers

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
	"github.com/testcontainers/testcontainers-go/wait"

	"spate/services/verifier"
	"spate/shared/kafka"
	"spate/shared/store/postgres"
	"spate/shared/store/postgres/postgrestest"
	"spate/shared/testport"
	"spate/shared/testskip"
	"spate/tests/harness"
)

// TestContainers runs the same suite on a broker and a Postgres in containers that it starts, and on those that are given: by
// SPATE_TEST_BROKERS and SPATE_TEST_DATABASE_URL, or for want of the latter the Postgres that is installed.
//
// The image of Redpanda may be a stand-in, see redpandaImage.
func TestContainers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts containers; -short is set")
	}
	t.Parallel()
	t.Run("containers", func(t *testing.T) {
		needsDocker(t, redpandaImage, postgresImage)
		database := startPostgres(t)
		t.Run("pipeline", func(t *testing.T) { testStored(t, startRedpanda(t), database) })
		t.Run("store", func(t *testing.T) { testStoreOn(t, database) })
	})
	t.Run("given", func(t *testing.T) {
		brokers := os.Getenv("SPATE_TEST_BROKERS")
		if brokers == "" {
			testskip.Missing(t, "SPATE_TEST_BROKERS does not name a Kafka")
		}
		t.Run("pipeline", func(t *testing.T) { testStored(t, brokers, givenPostgres(t)) })
		// Without a URL, go test ./shared/store/postgres starts the same Postgres itself.
		if given := os.Getenv("SPATE_TEST_DATABASE_URL"); given != "" {
			t.Run("store", func(t *testing.T) { testStoreOn(t, given) })
		}
	})
}

// givenPostgres returns the URL of an empty database.
func givenPostgres(t *testing.T) string {
	t.Helper()
	if os.Getenv("SPATE_TEST_DATABASE_URL") == "" {
		return postgrestest.Start(t).Database(t)
	}
	return postgrestest.URL(t)
}

// startPostgres returns the URL of the server's only database, as a user who may make others.
func startPostgres(t *testing.T) string {
	t.Helper()
	const password = "p4ss/w%rd" // odd enough to need quoting in a URL
	began := time.Now()
	c := startContainer(t, testcontainers.ContainerRequest{
		Image:        postgresImage,
		Env:          map[string]string{"POSTGRES_USER": "spate", "POSTGRES_PASSWORD": password, "POSTGRES_DB": "spate"},
		ExposedPorts: []string{"5432/tcp"},
		// The image starts the server twice, the first time to make the database.
		WaitingFor: wait.ForAll(
			wait.ForLog("database system is ready to accept connections").WithOccurrence(2), wait.ForListeningPort("5432/tcp"),
		).WithDeadline(2 * time.Minute),
	})
	address, err := c.PortEndpoint(t.Context(), "5432/tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s is ready after %v", postgresImage, time.Since(began).Round(100*time.Millisecond))
	return "postgres://spate:p4ss%2Fw%25rd@" + address + "/spate?sslmode=disable"
}

// startRedpanda returns the address of a broker. A broker tells its clients where to connect to, so its port on this machine has to be
// known before it starts.
func startRedpanda(t *testing.T) string {
	t.Helper()
	address := testport.Reserve(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	startContainer(t, testcontainers.ContainerRequest{
		Image: redpandaImage,
		Cmd: []string{"redpanda", "start", "--smp=1", "--memory=1G", "--reserve-memory=0M", "--overprovisioned", "--node-id=0", "--check=false",
			"--kafka-addr=internal://0.0.0.0:9092,external://0.0.0.0:19092", "--advertise-kafka-addr=internal://localhost:9092,external://" + address},
		ExposedPorts: []string{"19092/tcp"},
		HostConfigModifier: func(hc *container.HostConfig) {
			hc.PortBindings = network.PortMap{network.MustParsePort("19092/tcp"): {{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: port}}}
		},
		WaitingFor: wait.ForExec([]string{"sh", "-c", "rpk cluster health | grep -E 'Healthy:.+true'"}).WithPollInterval(500 * time.Millisecond).WithStartupTimeout(2 * time.Minute),
	})
	cl := harness.Connect(t, address)
	harness.Eventually(t, 30*time.Second, "the broker answers at the address that it tells", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return cl.Ping(ctx) == nil
	})
	t.Logf("%s is ready after %v", redpandaImage, time.Since(began).Round(100*time.Millisecond))
	return address
}

func startContainer(t *testing.T, request testcontainers.ContainerRequest) testcontainers.Container {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{ContainerRequest: request, Started: true, Logger: log.TestLogger(t)})
	testcontainers.CleanupContainer(t, c)
	if err != nil {
		if strings.Contains(err.Error(), "reaper") {
			testskip.Missing(t, "the container that cleans up after testcontainers does not start; TESTCONTAINERS_RYUK_DISABLED=true does without it: %v", err)
		}
		t.Fatalf("start %s: %v", request.Image, err)
	}
	return c
}

// testStored sends a small log, the same in every run, through services in processes of their own, and holds what Postgres has in the
// end against a plain count of the log.
func testStored(t *testing.T, brokers, database string) {
	names := kafka.NamesFor(harness.UniqueTopic(t))
	env := []string{"SPATE_BROKERS=" + brokers, "SPATE_TOPIC=" + names.Activity, "SPATE_PARTITIONS=4", "SPATE_DATABASE_URL=" + database, "SPATE_WEBHOOK_URL=", "SPATE_WEBHOOK_SECRET=", "SPATE_ENDPOINTS="}
	services := []*harness.Process{
		harness.Spate(t, "router", env, "route", "--instance", names.Activity).Start(),
		harness.Spate(t, "detector", env, "detect").Start(),
		harness.Spate(t, "alerter", env, "alert").Start(),
	}
	cl := harness.Connect(t, brokers)
	harness.Eventually(t, 60*time.Second, "topics are made", func() bool { return harness.TopicExists(t, cl, names.Activity) })
	traffic := harness.Spate(t, "traffic", env, "simulate", "--seed", "7", "--duration", "90s", "--event-rate", "300", "--speed", "0", "--quiet").Start()
	if err := traffic.Wait(60 * time.Second); err != nil {
		t.Fatal(err)
	}
	ref := harness.Reference(t, brokers, names.Activity, verifier.Rule{Window: 10 * time.Second, Lateness: 10 * time.Second, Threshold: 5})
	want := ref.Result()
	if len(want) < 10 {
		t.Fatalf("%d events break the rule %d times: too few to tell anything", ref.In, len(want))
	}

	var st *postgres.Store
	harness.Eventually(t, 30*time.Second, "the alerter has made the tables", func() bool {
		pending, err := postgres.Status(t.Context(), database)
		if err != nil || len(pending) == 0 || pending[len(pending)-1].AppliedAt.IsZero() {
			return false
		}
		st, err = postgres.Open(t.Context(), database)
		return err == nil
	})
	defer st.Close()
	harness.CheckStored(t, st, want, time.Minute)
	t.Logf("%d events, %d alerts", ref.In, len(want))
	harness.CheckLog(t, brokers, names, ref)
	harness.CheckAlertTopic(t, brokers, names, len(want))
	for _, s := range services {
		if err := s.Stop(10 * time.Second); err != nil {
			t.Errorf("%s does not end well on SIGTERM: %v", s.Name, err)
		}
	}
}

// testStoreOn runs the conformance suite of the store on another server, in a process of its own: the server is a setting of the process.
func testStoreOn(t *testing.T, database string) {
	// The suite takes a minute by itself, and ten where twenty processes want the same two cores.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-run", "^TestConformance$", "../../shared/store/postgres")
	cmd.Env = append(os.Environ(), "SPATE_TEST_DATABASE_URL="+database)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go test ./shared/store/postgres: %v\n%s", err, harness.Tail(out, 40))
	}
	t.Logf("%s", harness.Tail(out, 1))
}
