package syntax

import "strings"

// Near returns the one of the names that is closest to a word that is none of them, and so probably meant; empty if none is close.
func Near(word string, names []string) string {
	best, least := "", min(3, len(word)/3+1)
	for _, name := range names {
		if d := Distance(strings.ToLower(word), strings.ToLower(name)); d < least {
			best, least = name, d
		}
	}
	return best
}

// Distance is how many letters have to be inserted, removed or changed to turn a into b. Names are short.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
