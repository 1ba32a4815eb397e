package simulator

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDefaultIsTheFlagsDefault(t *testing.T) {
	d := reflect.ValueOf(Default())
	for i := range d.NumField() {
		field := d.Type().Field(i)
		tag, ok := field.Tag.Lookup("default")
		if !ok {
			if !d.Field(i).IsZero() {
				t.Errorf("%s has a default, and its flag has none", field.Name)
			}
			continue
		}
		got := fmt.Sprint(d.Field(i).Interface())
		if list, ok := d.Field(i).Interface().([]string); ok {
			got = strings.Join(list, ",")
		}
		if got = strings.Trim(got, "[]"); got != tag {
			t.Errorf("%s: Default has %s, the flag %s", field.Name, got, tag)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   []string // parts of the message, one a line; none means no error
	}{
		{"brokers given", func(c *Config) { c.Kafka.Brokers = []string{"localhost:9092"} }, nil},
		{"no brokers", func(c *Config) {}, []string{"brokers: missing"}},
		{"file out", func(c *Config) { c.Out = "x.csv.gz" }, nil},
		{"standard output", func(c *Config) { c.Out = "-" }, nil},
		{"any rate", func(c *Config) { c.Out, c.Rate = "-", 1000 }, nil},
		{"endless and unpaced", func(c *Config) { c.Out, c.Speed = "-", 0 }, []string{"events, duration: one of them is required when speed is 0"}},
		{"endless file, unpaced", func(c *Config) { c.Out, c.File, c.Speed = "-", "a.csv", 0 }, nil},
		{"few shoppers", func(c *Config) { c.Out, c.EventRate = "-", 50_000 }, []string{"users: 20000 is below 510000"}},
		{"weak giant", func(c *Config) { c.Out, c.EventRate = "-", 5 }, []string{"event-rate: 5 is below 10"}},
		{"low rate without a giant", func(c *Config) { c.Out, c.EventRate, c.Attackers = "-", 5, []string{"slow"} }, nil},
		{"disorder and now", func(c *Config) { c.Out, c.Disorder, c.TimeMode = "-", time.Second, TimeNow }, []string{"disorder: cannot be combined with --time now"}},
		{"none and more", func(c *Config) { c.Out, c.Attackers = "-", []string{"slow", "none"} }, []string{`attackers: "none" cannot be combined with other attackers`}},
		{"library and innocents", func(c *Config) { c.Out, c.Attackers, c.Innocents = "-", []string{"all", "library"}, []string{"all"} }, nil},
		{"an innocent among the attackers", func(c *Config) { c.Out, c.Attackers = "-", []string{"order"} }, []string{
			`attackers: "order" is not one of none, all, library, burst, slow, straddler, bulk_order, flood, giant, scraper, `,
		}},
		{"unknown innocent", func(c *Config) { c.Out, c.Innocents = "-", []string{"lamb"} }, []string{
			`innocents: "lamb" is not one of none, all, order, mass_removal, double_sent, office`,
		}},
		{"addresses in CSV", func(c *Config) {
			c.Out, c.Attackers, c.Innocents = "x.csv.gz", []string{"coupon_abuser"}, []string{"office"}
		}, []string{
			"out: events from coupon_abuser, office have addresses or coupons, for which a CSV file has no columns; write JSON lines",
		}},
		{"scraper in CSV", func(c *Config) {
			c.Out, c.Attackers, c.Innocents = "x.csv", []string{"scraper"}, []string{"double_sent"}
		}, nil},
		{"everything", func(c *Config) {
			*c = Config{
				Out: "x.txt", Key: "id", BatchMaxBytes: 1, TimeMode: "later", Speed: -1, Rate: -1, Disorder: 2 * time.Hour, Events: -1, Duration: -1,
				EventRate: -1, Users: -1, Attackers: []string{"ddos"}, Start: time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC),
			}
		}, []string{
			"out: the name", "key: ", "batch-max-bytes: ", "time: ", "speed: ", "rate: ", "disorder: ", "events: ", "duration: ", "window: ", "threshold: ",
			"attackers: ", "event-rate: ", "users: ", "start: ",
		}},
		{"both paces", func(c *Config) { c.Out, c.Speed, c.Rate = "-", 2, 100 }, []string{"rate, speed: only one of them"}},
		{"duration of a file", func(c *Config) { c.Out, c.File, c.Duration = "-", "a.csv", time.Minute }, []string{"duration: applies only to generated traffic"}},
		{"to kinesis", func(c *Config) { c.To, c.SpreadByUser = ToKinesis, true }, nil},
		{"out of S3", func(c *Config) { c.To, c.File = ToKinesis, "s3://bucket/2019/nov.csv" }, nil},
		{"no stream", func(c *Config) { c.To, c.Stream = ToKinesis, "" }, []string{`stream: "" is not a valid stream name`}},
		{"odd stream, odd object", func(c *Config) { c.To, c.Stream, c.File = ToKinesis, "arn:aws:kinesis:x", "s3://bucket" }, []string{
			"stream: ", `file: "s3://bucket" is not s3://bucket/key`,
		}},
		{"spread in kafka", func(c *Config) { c.Kafka.Brokers, c.SpreadByUser = []string{"h:1"}, true }, []string{"spread-by-user: applies only to Kinesis"}},
		{"to nowhere", func(c *Config) { c.To, c.Kafka.Brokers = "sqs", []string{"h:1"} }, []string{`to: "sqs" is not one of kafka, kinesis`}},
		{"no topic", func(c *Config) { c.Kafka.Brokers, c.Topic = []string{"h:1"}, "" }, []string{"topic: must not be empty"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Default()
			c.change(&cfg)
			err := cfg.Validate()
			if (err != nil) != (c.want != nil) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
			for _, want := range c.want {
				if !strings.Contains("\n"+err.Error(), "\n"+want) {
					t.Errorf("error %q has no line that begins with %q", err, want)
				}
			}
			if c.want != nil {
				if _, err := Run(t.Context(), cfg); err == nil {
					t.Error("Run takes it")
				}
			}
		})
	}
}
