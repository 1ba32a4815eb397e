#!/usr/bin/env bash
# The story of docs/aws.md as one script: from nothing to alerts, on whatever AWS the environment leads to.
#
#   tests/aws/story.sh FILE      spate must be in PATH; FILE is a CSV file of events
#
# It leaves what it made: streams, tables, topic and bucket, named after SPATE_STREAM and so on. TestStory runs it on the stand-ins.
set -euo pipefail
file=${1:?which file? a CSV file of events}
export SPATE_MODE=aws SPATE_HTTP=127.0.0.1:0
bucket=${SPATE_BUCKET:?name a bucket for the file: SPATE_BUCKET}
log=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait || true; rm -rf "$log"' EXIT
say() { printf '\n== %s\n' "$*"; }
wait_for() { # what, seconds, command: until it succeeds
  local what=$1 left=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    ((left-- > 0)) || { echo "not within the time: $what" >&2; tail -n 20 "$log"/* >&2; exit 1; }
    sleep 1
  done
}

say "1. bucket, streams, tables, topic"
spate aws setup --json | tee "$log/setup.json"
SPATE_TOPIC_ARN=$(sed -n 's/.*"topic_arn":"\([^"]*\)".*/\1/p' "$log/setup.json")
export SPATE_TOPIC_ARN

say "2. upload the data set"
spate simulate "$file" --put "s3://$bucket/events.csv"

say "3. the detector, and one that stands by"
spate work >"$log/worker" 2>&1 &
worker=$!
spate work >"$log/standby" 2>&1 &
wait_for "one of them works" 60 grep -q '"worker started"' "$log/worker" "$log/standby"

say "4. the alerter"
spate alert >"$log/alerter" 2>&1 &
wait_for "the alerter works" 60 grep -q '"alerter started"' "$log/alerter"

say "5. events from the bucket into stream 1"
spate simulate "s3://$bucket/events.csv" --speed 0 --quiet

say "6. look"
want=$(spate verify --json --mode embedded "$file" | sed -n 's/.*"rows": *\([0-9]*\).*/\1/p')
# The list that has them all is the one that is counted below: a later one may have the end of an incident, of which the topic is told next.
done_() { spate alerts ls --json >"$log/alerts" && [ "$(grep '"state":"closed"' "$log/alerts" | grep -c '"state":"delivered"')" -ge "$want" ]; }
wait_for "$want alerts are closed and stored, and the topic was told" 120 done_
spate alerts ls --only closed --limit 5
id=$(sed -n '1s/.*"id":"\([^"]*\)".*/\1/p' "$log/alerts")
spate alerts show "$id"
got=$(wc -l <"$log/alerts") told=$(grep -c '"state":"delivered"' "$log/alerts" || true)
echo "alerts: $got, of which the topic was told: $told; an independent count of the file has $want"
[ "$got" = "$want" ]

say "the metrics, as CloudWatch reads them from the log"
kill "$worker" && wait "$worker" || { echo "the worker does not end well on SIGTERM" >&2; exit 1; }
grep -h '"_aws"' "$log/alerter" | tail -n 1
