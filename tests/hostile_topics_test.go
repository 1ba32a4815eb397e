package tests

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"spate/shared/kafka"
	"spate/tests/harness"
)

// admin does something to the broker.
func (s *site) admin(do func(ctx context.Context, adm *kadm.Client) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	if err := do(ctx, s.adm); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) deleteTopic(topic string) {
	s.t.Helper()
	s.admin(func(ctx context.Context, adm *kadm.Client) error {
		_, err := adm.DeleteTopic(ctx, topic)
		return err
	})
}

// awaitRebuilt waits until it has begun anew for the sake of a change, and is ready again.
func (s *site) awaitRebuilt() {
	s.t.Helper()
	defer s.reconnect()
	harness.Eventually(s.t, 60*time.Second, "it sees the change", func() bool { return s.says(`session ended, restarting","service":"router"`) })
	s.awaitReady()
}

// calm fails the test if the site uses a processor without having anything to do. It measures from now on, until the function is called.
func (s *site) calm() func() {
	began, used := time.Now(), s.ProcessorTime()
	return func() {
		s.t.Helper()
		if wall, used := time.Since(began), s.ProcessorTime()-used; used > wall/2 {
			s.t.Errorf("%v of processor time in %v", used, wall)
		}
	}
}

// next is a time in the window after that of t.
func next(t time.Time) time.Time { return t.Truncate(siteWindow).Add(siteWindow) }

// TestTopicOfEventsMadeAnew: it is read from its start, and what was counted before stays.
func TestTopicOfEventsMadeAnew(t *testing.T) {
	t.Parallel()
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		s := newSite(t, brokers).begin()
		calm := s.calm()
		now := time.Now()
		s.send("before", 20, now, 0, 1, 2, 3)
		s.awaitMetric(counted, 80)
		was, err := s.incarnation()
		if err != nil {
			t.Fatal(err)
		}
		s.deleteTopic(s.names.Activity)
		harness.Eventually(t, 20*time.Second, "the topic is made anew", func() bool {
			s.reconnect()
			s.makeTopic(4, appended) // unless spate is first
			id, err := s.incarnation()
			return err == nil && id != was && id != 0
		})
		s.reconnect()
		s.send("at once", 20, next(now), 0)
		s.awaitRebuilt()
		s.send("after", 20, time.Now(), 0, 1, 2, 3)
		s.awaitClosed(map[string]int64{"before": 80, "at once": 20, "after": 80})
		s.awaitMetric(counted, 180)
		s.said("ERROR", "deleted and recreated: reading it from the beginning")
		s.sound()
		calm()
	})
}

// TestTopicOfEventsDeletedTwice: nobody makes it anew but spate, and the second time while it is stopped.
func TestTopicOfEventsDeletedTwice(t *testing.T) {
	t.Parallel()
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		s := newSite(t, brokers).begin()
		calm := s.calm()
		s.send("before", 20, time.Now(), 0, 1, 2, 3)
		s.awaitClosed(map[string]int64{"before": 80})
		s.deleteTopic(s.names.Activity)
		s.awaitRebuilt()
		s.send("between", 20, time.Now(), 0, 1, 2, 3)
		s.awaitClosed(map[string]int64{"before": 80, "between": 80})
		s.sound()
		calm()
		s.end()
		s.deleteTopic(s.names.Activity)
		s.begin()
		s.reconnect()
		calm = s.calm()
		s.send("after", 20, time.Now(), 0, 1, 2, 3)
		s.awaitClosed(map[string]int64{"before": 80, "between": 80, "after": 80})
		s.sound()
		calm()
	})
}

// TestInnerTopicsDeleted: they are made anew, and traffic from then on is exact. What was open in a keyed log is lost with it, which is told.
func TestInnerTopicsDeleted(t *testing.T) {
	t.Parallel()
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		for name, of := range map[string]struct {
			topic func(kafka.Names) string
			told  string
		}{
			"keyed":  {func(n kafka.Names) string { return n.Keyed }, "the keyed log was deleted and recreated"},
			"alerts": {func(n kafka.Names) string { return n.Alerts }, ""},
			"dlq":    {func(n kafka.Names) string { return n.DLQ }, ""},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, brokers).begin()
				calm := s.calm()
				s.send("before", 20, time.Now(), 0, 1, 2, 3)
				s.awaitClosed(map[string]int64{"before": 80})
				s.deleteTopic(of.topic(s.names))
				s.awaitRebuilt()
				s.send("after", 20, time.Now(), 0, 1, 2, 3)
				s.awaitClosed(map[string]int64{"before": 80, "after": 80})
				if of.told != "" {
					s.said("ERROR", of.told)
				}
				s.sound()
				calm()
			})
		}
	})
}

// TestPartitionsAdded: events of new partitions are counted, and windows close.
func TestPartitionsAdded(t *testing.T) {
	t.Parallel()
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		s := newSite(t, brokers).begin()
		calm := s.calm()
		now := time.Now()
		s.send("before", 20, now, 0, 1, 2, 3)
		s.awaitMetric(counted, 80)
		s.admin(func(ctx context.Context, adm *kadm.Client) error {
			r, err := adm.UpdatePartitions(ctx, 6, s.names.Activity)
			return errors.Join(err, r.Error())
		})
		harness.Eventually(t, 20*time.Second, "the new partitions are known", func() bool {
			n, err := kafka.Partitions(t.Context(), s.cl, s.names.Activity)
			return err == nil && n == 6 && harness.TopicExists(t, s.cl, s.names.Activity)
		})
		s.reconnect()
		s.send("at once", 20, next(now), 5)
		s.awaitMetric(counted, 100)
		s.send("after", 20, time.Now(), 0, 1, 2, 3, 4, 5)
		s.awaitClosed(map[string]int64{"before": 80, "at once": 20, "after": 120})
		s.sound()
		calm()
		s.end()
		s.begin()
		s.send("restart", 20, time.Now(), 0, 1, 2, 3, 4, 5)
		s.awaitClosed(map[string]int64{"before": 80, "at once": 20, "after": 120, "restart": 120})
		s.sound()
	})
}

// TestKeyedLogCompacted: a setting that loses data ends the service, with the way to mend it.
func TestKeyedLogCompacted(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; -short is set")
	}
	t.Parallel()
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		s := newSite(t, brokers).begin()
		s.send("before", 20, time.Now(), 0, 1, 2, 3)
		s.awaitClosed(map[string]int64{"before": 80})
		policy := func(value string) {
			s.admin(func(ctx context.Context, adm *kadm.Client) error {
				r, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "cleanup.policy", Value: &value}}, s.names.Keyed)
				if err = errors.Join(err, r[0].Err); err != nil {
					return err
				}
				// The controller has it now; the broker that is asked may say for a moment what it was before.
				harness.Eventually(s.t, 20*time.Second, "the broker has cleanup.policy="+value, func() bool {
					var found kadm.ResourceConfigs
					if found, err = adm.DescribeTopicConfigs(ctx, s.names.Keyed); err != nil || found[0].Err != nil {
						return false
					}
					for _, c := range found[0].Configs {
						if c.Key == "cleanup.policy" {
							return c.MaybeValue() == value
						}
					}
					return false
				})
				return err
			})
		}
		policy("compact")
		harness.Eventually(t, 60*time.Second, "it ends", func() bool {
			select {
			case <-s.Done():
				return true
			default:
				return false // its figures are not looked at: it may end at any moment
			}
		})
		if err := s.Wait(time.Second); err == nil || err.Error() != "exit status 1" {
			t.Errorf("it ended with %v", err)
		}
		if !s.says(s.names.Keyed + ` has cleanup.policy=compact, but it must be delete: change it with kafka-configs --alter --entity-type topics --entity-name ` + s.names.Keyed) {
			t.Error("it does not name topic, setting and fix")
		}
		s.quiet()
		policy("delete")
		s.begin()
		s.send("after", 20, time.Now(), 0, 1, 2, 3)
		s.awaitClosed(map[string]int64{"before": 80, "after": 80})
		s.sound()
	})
}

// TestOffsetsSetByHand: whatever was done to the offsets of the groups, the log tells what was counted.
func TestOffsetsSetByHand(t *testing.T) {
	t.Parallel()
	reset := func(s *site, group, topic string, at ...int64) {
		s.t.Helper()
		s.admin(func(ctx context.Context, adm *kadm.Client) error {
			o := make(kadm.Offsets)
			for p, at := range at {
				o.Add(kadm.Offset{Topic: topic, Partition: int32(p), At: at, LeaderEpoch: -1})
			}
			r, err := adm.CommitOffsets(ctx, group, o)
			return errors.Join(err, r.Error())
		})
	}
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		for name, meddle := range map[string]func(s *site){
			"to the start": func(s *site) {
				reset(s, s.names.RouterGroup, s.names.Activity, 0, 0)
				reset(s, s.names.DetectorGroup, s.names.Keyed, 0, 0)
			},
			"anywhere": func(s *site) {
				reset(s, s.names.RouterGroup, s.names.Activity, 7, 0)
				reset(s, s.names.DetectorGroup, s.names.Keyed, 1, 1)
			},
			"past the end": func(s *site) {
				reset(s, s.names.RouterGroup, s.names.Activity, 1000, 1000)
				reset(s, s.names.DetectorGroup, s.names.Keyed, 1000, 1000)
			},
			"deleted": func(s *site) {
				s.admin(func(ctx context.Context, adm *kadm.Client) error {
					// A broker may take a moment to see that nobody is in them any more.
					var err error
					harness.Eventually(s.t, 20*time.Second, "the groups are deleted", func() bool {
						var r kadm.DeleteGroupResponses
						r, err = adm.DeleteGroups(ctx, s.names.RouterGroup, s.names.DetectorGroup)
						for _, g := range r {
							if g.Err != nil && !errors.Is(g.Err, kerr.GroupIDNotFound) {
								return false
							}
						}
						return err == nil
					})
					return err
				})
			},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, brokers, "SPATE_PARTITIONS=2").begin()
				s.send("early", 20, time.Now(), 0, 1)
				s.awaitClosed(map[string]int64{"early": 40})
				now := time.Now()
				s.send("before", 40, now, 0)
				s.awaitMetric(counted, 80)
				s.end()
				meddle(s)
				s.begin()
				s.send("after", 20, next(now), 0, 1)
				s.awaitClosed(map[string]int64{"early": 40, "before": 40, "after": 40})
				s.awaitMetric(counted, 40)
				s.said("ERROR", `"group":"`+s.names.RouterGroup)
				s.said("ERROR|INFO", `"group":"`+s.names.DetectorGroup) // without an offset, it may be a first start
				if got, open := s.closed(); got["early"].Alerts != 1 || got["before"].Alerts != 1 || got["after"].Alerts != 1 || open != 0 {
					t.Errorf("closed are %v, open %d", got, open)
				}
				s.sound()
			})
		}
	})
}

// TestEventsDeletedUnread: what retention takes before it is read is told, with its number.
func TestEventsDeletedUnread(t *testing.T) {
	t.Parallel()
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		s := newSite(t, brokers).begin()
		s.send("before", 20, time.Now(), 0, 1, 2, 3)
		s.awaitClosed(map[string]int64{"before": 80})
		s.end()
		s.send("lost", 30, time.Now(), 0)
		s.send("lost", 7, time.Now(), 2)
		s.admin(func(ctx context.Context, adm *kadm.Client) error {
			o := make(kadm.Offsets)
			for p, at := range []int64{50, 20, 27, 10} {
				o.Add(kadm.Offset{Topic: s.names.Activity, Partition: int32(p), At: at})
			}
			r, err := adm.DeleteRecords(ctx, o)
			return errors.Join(err, r.Error())
		})
		s.begin()
		s.send("after", 20, time.Now(), 0, 1, 2, 3)
		s.awaitClosed(map[string]int64{"before": 80, "after": 80})
		s.awaitMetric("spate_router_lost_events_total", 37)
		s.said("ERROR", `deleted before they were read.*"partition":0,"records":30`)
		s.said("ERROR", `deleted before they were read.*"partition":2,"records":7`)
		s.sound()
	})
}
