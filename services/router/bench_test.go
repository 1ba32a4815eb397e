package router

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"spate/shared/activity"
	"spate/shared/format"
	"spate/shared/kafka"
	"spate/shared/rule"
	"spate/shared/window"
)

// rulesOn are rules in windows of ten seconds with a key, for the events that a condition is about: one for each condition over the window.
func rulesOn(key, where string, having ...string) string {
	var b strings.Builder
	for i, h := range having {
		fmt.Fprintf(&b, "-- rule: %s-%x-%d\nINSERT INTO alerts SELECT %s, COUNT(*) AS n FROM activity %s GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), %[4]s HAVING %[6]s;\n",
			strings.ReplaceAll(key, "_", "-"), len(where), i, key, where, h)
	}
	return b.String()
}

// BenchmarkRules is what an event costs both halves, without Kafka: from its record to the close of its windows. The shapes are those of the section rules of tests/bench: nearly every
// event is the first of its user, of its product and of its session in a window, and a transaction has as many panes as the router allows.
func BenchmarkRules(b *testing.B) {
	burst := rulesOn("user_id", "", "COUNT(*) > 5")
	mixed := rulesOn("user_id", "", "COUNT(*) > 5", "COUNT(*) > 200", "COUNT(*) > 300 AND COUNT(*) FILTER (WHERE event_type = 'purchase') = 0", "COUNT(*) FILTER (WHERE event_type = 'view') > 200",
		"COUNT(*) FILTER (WHERE event_type = 'cart') > 200", "SUM(price) > 1000000", "MAX(price) > 100000", "COUNT(DISTINCT product_id) > 200", "COUNT(DISTINCT brand) > 200", "AVG(price) > 100000")
	other := rulesOn("product_id", "", "COUNT(*) > 100000")
	for _, shape := range []struct{ name, rules string }{
		{"one", burst}, {"ten", mixed}, {"feeds=2", burst + other},
		{"feeds=4", burst + other + rulesOn("user_id", "WHERE event_type = 'cart'", "COUNT(*) > 200") + rulesOn("user_id", "WHERE event_type = 'purchase'", "COUNT(*) > 200")},
	} {
		b.Run(shape.name, func(b *testing.B) { benchmarkRules(b, shape.rules) })
	}
}

// event is a record of the load in which the times, the product and the user are replaced.
const event = `{"event_time": "2019-11-01 00:00:00 UTC", "event_type": "view", "product_id": 10000000, "category_id": 2053013555631882655, "category_code": "electronics.smartphone", ` +
	`"brand": "samsung", "price": 489.99, "user_id": 512000000, "user_session": "4d3b30da-a5e4-49df-b1a8-ba5943f1dd33", "txn_timestamp": "2019-11-01T00:00:00.000"}`

func benchmarkRules(b *testing.B, rules string) {
	const keyed, perSecond = 4, 20_000
	set, errs := rule.Compile(rules, rule.Options{Tables: []*rule.Table{rule.Activity()}})
	if len(errs) > 0 {
		b.Fatal(errs)
	}
	s := window.Stream{Plan: set.Plan(), LatenessMS: 10_000}
	reader, err := format.New(format.Config{Fields: activity.DefaultFields(), Columns: s.Plan.Inputs})
	if err != nil {
		b.Fatal(err)
	}
	combiner, source := window.NewCombiner(s), window.NewSource()
	var tables [keyed]*window.Table
	for i := range tables {
		tables[i] = window.NewTable(s)
	}
	at := func(after string) int { return strings.Index(event, after) + len(after) }
	product, user, txn := at(`"product_id": `), at(`"user_id": `), at(`"txn_timestamp": "`)
	records := make([][]byte, 10_000)
	for i := range records {
		records[i] = []byte(event)
	}
	var number [20]byte
	var out []window.Verdict
	const begin = 1_700_000_000_000
	b.ReportAllocs()
	offset := int64(0)
	for i := int64(0); b.Loop(); i++ {
		value, ms := records[i%int64(len(records))], begin+i*1000/perSecond
		copy(value[user:], strconv.AppendInt(number[:0], 512_000_000+i*7919%1_000_000, 10))
		copy(value[product:], strconv.AppendInt(number[:0], 10_000_000+i*104_729%50_000_000, 10))
		copy(value[txn:], activity.AppendTime(number[:0], ms)[:23])
		mark, reason, err := reader.Mark(b.Context(), value, nil)
		if reason != activity.ReasonNone || err != nil {
			b.Fatal(reason, err)
		}
		e := window.Event{MS: mark.TimeMS, Partition: int32(i % 4), Offset: i, Identity: window.Identity(mark.ID), Values: reader.Columns(mark, nil)}
		if fate, _ := combiner.Add(&e, source.Judge(s.LatenessMS, mark.TimeMS, ms)); fate.Late() {
			b.Fatal("late")
		}
		if i%1000 != 0 || combiner.Panes() < maxPanes { // the router asks after each fetch
			continue
		}
		h := window.Header{Sources: 4}
		for p := range int32(4) {
			h.Watermarks = append(h.Watermarks, window.Watermark{Partition: p, WatermarkMS: source.Watermark(s.LatenessMS)})
		}
		combiner.Flush(keyed, func(key []byte) int32 { return kafka.PartitionFor(key, keyed) }, h, func(p int32, batch []byte) {
			if out, err = tables[p].Apply(offset, batch, out[:0]); err != nil {
				b.Fatal(err)
			}
			offset++
		})
		for _, t := range tables {
			t.Committed(t.Position(offset))
		}
	}
}
