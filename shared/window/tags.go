package window

// keyTags are the tags of a batch's keys, by slice. They are known before the first key is added up, so that what is known of the keys can be fetched for many at once.
type keyTags struct {
	tags []uint32
	ends []int // where those of each slice end
	// How far they were read.
	slices, at int
	fetched    int // the first key that is not fetched
}

func (k *keyTags) reset() { *k = keyTags{tags: k.tags[:0], ends: k.ends[:0]} }

// slice begins a slice.
func (k *keyTags) slice() { k.ends = append(k.ends, len(k.tags)) }

// key adds a key to the slice.
func (k *keyTags) key(key []byte) {
	k.tags = append(k.tags, uint32(tag(key)))
	k.ends[len(k.ends)-1] = len(k.tags)
}

// nextSlice goes on to the next slice.
func (k *keyTags) nextSlice() { k.slices++ }

// next returns the tag of the next key, which is of a slice that c counts; nil if nothing does.
func (k *keyTags) next(c *counts) uint64 {
	if k.at >= k.fetched {
		k.fetched = min(k.at+ahead, k.ends[k.slices-1])
		if c != nil {
			c.fetch(k.tags[k.at:k.fetched])
		}
	}
	k.at++
	return uint64(k.tags[k.at-1])
}
