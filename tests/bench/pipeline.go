package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"spate/shared/kafka"
)

// pipeline is the topics and groups of spate for one topic of events. They follow from its name, so a topic can be measured again only
// when all that was written is gone.
type pipeline struct {
	names kafka.Names
	env   []string // settings of all services
}

// pipeline lets the measured program make the topics that are missing, as they are where it has run before: their making is not
// measured. The alerter makes all and reads none of what the others read.
func (b *bench) pipeline(ctx context.Context, activity string, partitions int, env ...string) (pipeline, error) {
	pipe := pipeline{names: kafka.NamesFor(activity), env: append([]string{"SPATE_PARTITIONS=" + strconv.Itoa(partitions)}, env...)}
	for _, t := range append(pipe.outputs(), activity) {
		b.made[t] = struct{}{}
	}
	maker, err := b.spate(ctx, pipe.with("SPATE_DATABASE_URL="+b.file(filepath.Base(b.program)+"-maker.db")), "alert")
	if err != nil {
		return pipe, err
	}
	defer maker.stop()
	if err := ready(ctx, maker); err != nil {
		return pipe, err
	}
	return pipe, b.await(ctx, append(pipe.outputs(), activity)...)
}

func (p pipeline) outputs() []string {
	n := p.names
	return []string{n.Keyed, n.Late, n.DLQ, n.Alerts, n.Table()}
}

func (p pipeline) with(env ...string) pipeline {
	p.env = slices.Concat(p.env, env)
	return p
}

// clear forgets everything but the events. The services have ended.
func (b *bench) clear(ctx context.Context, p pipeline) error {
	if err := b.drop(ctx, append(p.outputs(), p.names.Rules)...); err != nil {
		return err
	}
	return b.dropGroups(ctx, p.names.RouterGroup, p.names.DetectorGroup, p.names.AlerterGroup)
}

func (b *bench) dropGroups(ctx context.Context, groups ...string) error {
	var last error
	err := poll(ctx, 15*time.Second, 100*time.Millisecond, "deletion of the groups", func() (bool, error) {
		gone, err := b.adm.DeleteGroups(ctx, groups...)
		last = err // a coordinator may be about to come
		for _, r := range gone {
			if r.Err != nil && !errors.Is(r.Err, kerr.GroupIDNotFound) {
				last = errors.Join(last, fmt.Errorf("%s: %w", r.Group, r.Err))
			}
		}
		return last == nil, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}
