package intake

import (
	"math"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// leastShare is what a partition may return of a response if anything: a batch of the size that brokers take by default.
const leastShare = 1 << 20

// complete makes every response to a fetch name the aborted transactions in it. kfake leaves those of a partition out if the response is full
// (FetchRequest.MaxBytes) in the middle of it, and then a reader takes aborted records for committed ones. So no response gets full: the partitions of a
// request share what it may return. For that, each request must name all of its partitions, so there are no fetch sessions.
func complete(c *kfake.Cluster) {
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, TopLevel: true, Count: -1, When: func(r kmsg.Request) bool {
		share(r.(*kmsg.FetchRequest))
		return false // it is answered as any other
	}})
}

// share divides what a response may return among the partitions of the request, in their order, which consumers change from one request to the next.
func share(r *kmsg.FetchRequest) {
	n := int32(0)
	for _, t := range r.Topics {
		n += int32(len(t.Partitions))
	}
	left := r.MaxBytes
	each := max(left/max(n, 1), leastShare)
	for _, t := range r.Topics {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			p.PartitionMaxBytes = min(p.PartitionMaxBytes, max(min(each, left), 1)) // with 1, only what is alone in the response
			left -= min(max(p.PartitionMaxBytes, 0), max(left, 0))
		}
	}
	r.MaxBytes = math.MaxInt32
	if r.SessionEpoch == 0 { // it asks for a session
		r.SessionEpoch = -1
	}
}
