package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What is let through, and in which form. A frame is walked by its layout before kfake sees it, for the decoder of kfake, kmsg, believes what
// it reads: it makes room for as many elements as an array claims, and goes around four billion times for the tagged fields that five bytes
// claim. The walk allocates nothing and is at most linear in the frame.

const (
	// headerBytes: key, version and correlation id. No frame is shorter, and what follows is not read before they are checked.
	headerBytes = 8
	// maxProduceBytes bounds a frame of records. Clients limit themselves to 100 MiB at most (franz-go's default; Java's is 1 MiB).
	maxProduceBytes = 128 << 20
	// maxRequestBytes bounds any other frame: that of an assignment of 10,000 partitions has less.
	maxRequestBytes = 4 << 20
	// maxElements bounds the elements of all arrays of a frame: kfake makes a struct for each.
	maxElements = 50_000
	// elementBytes is about the size of the largest of these structs.
	elementBytes = 160
	// maxPartitions bounds those of a topic: kfake makes all at once, in one loop, without asking.
	maxPartitions = 10_000
	// maxFetchBytes and maxFetchWait bound what one fetch returns, as Kafka's fetch.max.bytes does, and for how long kfake remembers it
	// after its connection has ended.
	maxFetchBytes  = 55 << 20
	maxFetchWaitMS = 5 * 60_000
)

const (
	keyProduce          = int16(kmsg.Produce)
	keyFetch            = int16(kmsg.Fetch)
	keyJoinGroup        = int16(kmsg.JoinGroup)
	keyAPIVersions      = int16(kmsg.ApiVersions)
	keyCreateTopics     = int16(kmsg.CreateTopics)
	keyCreatePartitions = int16(kmsg.CreatePartitions)
)

// api is a request that is let through: its highest version, the first version with tagged fields ("flexible"; -1 is never), and its layout.
//
// A layout is a list of fields: 1, 2, 4, 8 are integers of so many bytes, u is an id of 16, s a string, b bytes, S and B the same or null, ( ) an array of what is
// inside, [ ] an array of structs, { } a struct that may be missing. @3 is a field since version 3, @0-2 one until version 2.
type api struct {
	max, flexible int16
	layout        string
}

// apis are what producers, consumers and tools for topics and groups need. The rest of what kfake has (share groups, telemetry, ACLs, SASL,
// quotas, replicas, features) serves nobody here and is not offered: each handler is one more that may panic.
//
// Produce is offered up to version 12. From 13 on topics are ids, and kfake panics (index out of range in donep) on a request with two ids
// that it does not know, which an honest producer sends after two of its topics were deleted.
var apis = map[int16]api{
	0:  {12, 9, "S@3 2 4 [s [4 B]]"},                                                                       // Produce
	1:  {18, 12, "4@0-14 4 4 4@3 1@4 4@7 4@7 [s@0-12 u@13 [4 4@9 8 4@12 8@5 4]] [s@7-12 u@13 (4)]@7 s@11"}, // Fetch
	2:  {11, 6, "4 1@2 [s [4 4@4 8 4@0-0]] 4@10"},                                                          // ListOffsets
	3:  {13, 9, "[u@10 s@0-9 S@10] 1@4 1@8-10 1@8"},                                                        // Metadata
	8:  {10, 8, "s 4@1 s@1 S@7 8@2-4 [s@0-9 u@10 [4 8 8@1-1 4@6 S]]"},                                      // OffsetCommit
	9:  {10, 6, "s@0-7 [s (4)]@0-7 [s S@9 4@9 [s@8-9 u@10 (4)]]@8 1@7"},                                    // OffsetFetch
	10: {6, 3, "s@0-3 1@1 (s)@4"},                                                                          // FindCoordinator
	11: {9, 6, "s 4 4@1 s S@5 s [s b] S@8"},                                                                // JoinGroup
	12: {4, 4, "s 4 s S@3"},                                                                                // Heartbeat
	13: {5, 4, "s s@0-2 [s S S@5]@3"},                                                                      // LeaveGroup
	14: {5, 4, "s 4 s S@3 S@5 S@5 [s b]"},                                                                  // SyncGroup
	15: {6, 5, "(s) 1@3"},                                                                                  // DescribeGroups
	16: {5, 3, "(s)@4 (s)@5"},                                                                              // ListGroups
	18: {5, 3, "s@3 s@3 S@5 4@5"},                                                                          // ApiVersions
	19: {7, 5, "[s 4 2 [4 (4)] [s S]] 4 1@1"},                                                              // CreateTopics
	20: {6, 4, "(s)@0-5 [S u]@6 4"},                                                                        // DeleteTopics
	21: {2, 2, "[s [4 8]] 4"},                                                                              // DeleteRecords
	22: {5, 2, "S 4 8@3 2@3"},                                                                              // InitProducerID
	23: {4, 4, "4@3 [s [4 4@2 4]]"},                                                                        // OffsetForLeaderEpoch
	24: {5, 3, "s@0-3 8@0-3 2@0-3 [s (4)]@0-3 [s 8 2 1 [s (4)]]@4"},                                        // AddPartitionsToTxn
	25: {4, 3, "s 8 2 s"},                                                                                  // AddOffsetsToTxn
	26: {5, 3, "s 8 2 1"},                                                                                  // EndTxn
	28: {6, 3, "s s 8 2 4@3 s@3 S@3 [s@0-5 u@6 [4 8 4@2 S]]"},                                              // TxnOffsetCommit
	32: {4, 4, "[1 s (s)] 1@1 1@3"},                                                                        // DescribeConfigs
	33: {2, 2, "[1 s [s S]] 1"},                                                                            // AlterConfigs
	35: {5, 2, "[s (4)]"},                                                                                  // DescribeLogDirs
	37: {3, 2, "[s 4 [(4)]] 4 1"},                                                                          // CreatePartitions
	42: {3, 2, "(s)"},                                                                                      // DeleteGroups
	44: {1, 1, "[1 s [s 1 S]] 1"},                                                                          // IncrementalAlterConfigs
	46: {0, 0, "4 [s (4)]"},                                                                                // ListPartitionReassignments
	47: {0, -1, "s [s [4]]"},                                                                               // OffsetDelete
	60: {2, 0, "1 1@1 1@2"},                                                                                // DescribeCluster
	61: {0, 0, "[s (4)]"},                                                                                  // DescribeProducers
	65: {0, 0, "(s)"},                                                                                      // DescribeTransactions
	66: {2, 0, "(s) (8) 8@1 S@2"},                                                                          // ListTransactions
	68: {1, 0, "s s 4 S S 4 (s) S@1 S [u (4)]"},                                                            // ConsumerGroupHeartbeat
	69: {1, 0, "(s) 1"},                                                                                    // ConsumerGroupDescribe
	75: {0, 0, "[s] 4 {s 4}"},                                                                              // DescribeTopicPartitions
}

// field is a part of a layout.
type field struct {
	kind     byte
	from, to int16
	of       []field
}

var layouts = func() map[int16][]field {
	m := make(map[int16][]field, len(apis))
	for key, a := range apis {
		m[key], _ = parseLayout(a.layout)
	}
	return m
}()

// parseLayout returns the fields of s up to the end of its struct or array, and what follows that.

func parseLayout(s string) (fs []field, rest string) {
	for s != "" {
		f := field{kind: s[0], to: math.MaxInt16}
		s = s[1:]
		switch f.kind {
		case ' ':
			continue
		case ')', ']', '}':
			return fs, s
		case '(', '[', '{':
			f.of, s = parseLayout(s)
		}
		if strings.HasPrefix(s, "@") {
			end := strings.IndexAny(s+" ", " )]}")
			if n, _ := fmt.Sscanf(s[:end], "@%d-%d", &f.from, &f.to); n == 0 {
				panic("layout: " + s)
			}
			s = s[end:]
		}
		fs = append(fs, f)
	}
	return fs, ""
}

// refusal is why a connection ends; its text is the metric's label.
type refusal struct {
	reason string
	err    error
}

func (r *refusal) Error() string { return r.reason + ": " + r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refuse(reason, format string, args ...any) error {
	return &refusal{reason, fmt.Errorf(format, args...)}
}

// checkLength judges a frame by its first four bytes.
func checkLength(h []byte) error {
	if n := binary.BigEndian.Uint32(h); n < headerBytes || n > maxProduceBytes {
		return refuse("length", "a frame cannot be %d bytes long", n)
	}
	return nil
}

// checkHeader judges a frame that passed checkLength by its first 12 bytes: its request key, its version, and whether the key allows its length.
func checkHeader(h []byte) (size int, key, version int16, _ error) {
	n := binary.BigEndian.Uint32(h)
	key, version = int16(binary.BigEndian.Uint16(h[4:])), int16(binary.BigEndian.Uint16(h[6:]))
	a, ok := apis[key]
	limit := uint32(maxRequestBytes)
	if key == keyProduce {
		limit = maxProduceBytes
	}
	switch {
	case !ok:
		return 0, 0, 0, refuse("key", "request key %d is not supported", key)
	case version < 0 || version > a.max && key != keyAPIVersions:
		return 0, 0, 0, refuse("version", "version %d of request key %d is not supported", version, key)
	case n > limit:
		return 0, 0, 0, refuse("length", "a frame of %d bytes is too long for request key %d", n, key)
	}
	return int(n), key, version, nil
}

// admit judges a whole frame, with its length prefix, that passed checkHeader. It returns the frame for kfake, changed where a bound
// applies, the memory that its structs will take there, and whether kfake will answer.
func admit(frame []byte) (_ []byte, structs int64, answered bool, _ error) {
	key, version := int16(binary.BigEndian.Uint16(frame[4:])), int16(binary.BigEndian.Uint16(frame[6:]))
	a := apis[key]
	if key == keyAPIVersions && version > a.max {
		return unknownVersion(frame, version), 0, true, nil
	}
	w := walker{r: kbin.Reader{Src: frame[4+headerBytes:]}, key: key, version: version, flexible: a.flexible >= 0 && version >= a.flexible}
	w.span(int(w.r.Int16()), true) // client id; never compact
	w.tags()
	body := w.r.Src
	w.object(layouts[key])
	if w.err == nil {
		w.err = w.r.Complete()
	}
	if w.err == nil {
		answered, w.err = bound(key, version, w.flexible, body)
	}
	if w.err != nil {
		return nil, 0, false, refuse("body", "request key %d, version %d: %w", key, version, w.err)
	}
	return frame, int64(w.elements) * elementBytes, answered, nil
}

// unknownVersion rebuilds an ApiVersions request whose version kfake does not know, because the client is newer. Only the header of such a
// request can be read. Its body does not matter: the answer always has version 0 (KIP-511).
func unknownVersion(frame []byte, version int16) []byte {
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version = version
	out := append([]byte(nil), frame[:4+headerBytes]...)
	out = append(out, 0xff, 0xff, 0) // no client id, no tagged fields
	out = req.AppendTo(out)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out
}

// walker reads a request as kmsg does. It stops at the first error, which is in err or in r.
type walker struct {
	r            kbin.Reader
	key, version int16
	flexible     bool
	elements     int
	err          error
}

func (w *walker) ok() bool { return w.err == nil && w.r.Ok() }

func (w *walker) object(fs []field) {
	w.fields(fs)
	w.tags()
}

func (w *walker) fields(fs []field) {
	for _, f := range fs {
		if !w.ok() {
			return
		}
		if w.version < f.from || w.version > f.to {
			continue
		}
		switch f.kind {
		case '1', '2', '4', '8':
			w.r.Span(int(f.kind - '0'))
		case 'u':
			w.r.Span(16)
		case 's', 'S':
			w.span(w.length(2), f.kind == 'S')
		case 'b', 'B':
			b := w.span(w.length(4), f.kind == 'B')
			if w.key == keyProduce && w.ok() {
				w.err = checkBatch(b)
			}
		case '{':
			if w.r.Int8() != -1 {
				w.object(f.of)
			}
		default:
			w.array(f)
		}
	}
}

func (w *walker) array(f field) {
	n := w.length(4)
	if w.elements += max(n, 0); n > len(w.r.Src) || w.elements > maxElements {
		w.err = fmt.Errorf("an array of %d elements in %d bytes", n, len(w.r.Src))
	}
	for i := 0; i < n && w.ok(); i++ {
		if f.kind == '[' {
			w.object(f.of)
		} else {
			w.fields(f.of)
		}
	}
}

// length reads the length of a string, bytes or an array: an integer of so many bytes, or a varint if it is compact. A negative length is null.
func (w *walker) length(bytes int) int {
	switch {
	case w.flexible:
		return int(w.r.Uvarint()) - 1
	case bytes == 2:
		return int(w.r.Int16())
	default:
		return int(w.r.Int32())
	}
}

func (w *walker) span(n int, nullable bool) []byte {
	if n < 0 && nullable {
		return nil
	}
	return w.r.Span(n) // not Ok if n is negative
}

// tags skips tagged fields. kmsg reads as many as the request claims, even when nothing is left to read. Here, each must take at least two bytes.
func (w *walker) tags() {
	if !w.flexible || !w.ok() {
		return
	}
	n := w.r.Uvarint()
	if int64(n)*2 > int64(len(w.r.Src)) {
		w.err = fmt.Errorf("%d tagged fields do not fit in %d bytes", n, len(w.r.Src))
	}
	for ; n > 0 && w.ok(); n-- {
		tag := w.r.Uvarint()
		if w.span(int(w.r.Uvarint()), false); w.key == keyFetch && tag <= 1 {
			w.err = errFollower
		}
	}
}

// errFollower is the error for a fetch with the tagged fields of a follower, which can nest other fields. The embedded broker has no followers.
var errFollower = errors.New("a fetch by a follower; the embedded broker has no followers")

// checkBatch refuses a batch that claims fewer than one record: kfake adds the count to the end offset of the partition, which would move back.
func checkBatch(b []byte) error {
	const count, header = 57, 61
	if len(b) >= header {
		if n := int32(binary.BigEndian.Uint32(b[count:])); n < 1 {
			return fmt.Errorf("a batch of %d records; the minimum is 1", n)
		}
	}
	return nil
}

var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

// bound applies the rules that layouts do not have, to a body whose layout is right. It reports whether kfake will answer.
func bound(key, version int16, flexible bool, body []byte) (answered bool, _ error) {
	switch key {
	case keyProduce:
		w := walker{r: kbin.Reader{Src: body}, flexible: flexible}
		w.span(w.length(2), true) // transactional id
		return w.r.Int16() != 0, nil
	case keyFetch:
		if version < 15 {
			body = body[4:] // replica
		}
		lower(body, maxFetchWaitMS)
		lower(body[8:], maxFetchBytes) // behind the least bytes
	case keyJoinGroup:
		req := kmsg.NewPtrJoinGroupRequest()
		req.Version = version
		if err := req.ReadFrom(body); err != nil {
			return false, err
		}
		// kfake counts the members that have a protocol, one that names it twice two times, and panics when it finds none that all have.
		names := make(map[string]bool)
		for _, p := range req.Protocols {
			names[p.Name] = true
		}
		if len(names) == 0 || len(names) != len(req.Protocols) {
			return false, errors.New("a member that has no protocol, or has the same protocol twice")
		}
	case keyCreateTopics:
		req := kmsg.NewPtrCreateTopicsRequest()
		req.Version = version
		if err := req.ReadFrom(body); err != nil {
			return false, err
		}
		for _, t := range req.Topics {
			if !topicName.MatchString(t.Topic) || t.NumPartitions > maxPartitions {
				return false, fmt.Errorf("topic %.300q with %d partitions is not allowed", t.Topic, t.NumPartitions)
			}
		}
	case keyCreatePartitions:
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.Version = version
		if err := req.ReadFrom(body); err != nil {
			return false, err
		}
		for _, t := range req.Topics {
			if t.Count > maxPartitions {
				return false, fmt.Errorf("topic %.300q with %d partitions is not allowed", t.Topic, t.Count)
			}
		}
	}
	return true, nil
}

// lower lowers the number that b begins with to at most limit.
func lower(b []byte, limit int32) {
	if int32(binary.BigEndian.Uint32(b)) > limit {
		binary.BigEndian.PutUint32(b, uint32(limit))
	}
}
