package store

import "iter"

// Collect returns what a list yields, or its first error.
func Collect[T any](list iter.Seq2[T, error]) (out []T, err error) {
	for x, err := range list {
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}
