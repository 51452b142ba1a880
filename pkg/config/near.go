package config

// nearest returns the known key that key was most likely meant to be, empty if none is close.
func nearest(key string, known map[string]bool) string {
	best, distance := "", 3
	for candidate := range known {
		d := edits(key, candidate)
		if d < distance || d == distance && best != "" && candidate < best {
			best, distance = candidate, d
		}
	}
	return best
}

// edits counts the insertions, deletions and changes of a byte that lead from a to b.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		above := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := above
			if a[i] != b[j] {
				cost++
			}
			above = row[j+1]
			row[j+1] = min(cost, above+1, row[j]+1)
		}
	}
	return row[len(b)]
}
