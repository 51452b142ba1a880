package config

import (
	"strings"
	"time"
)

// words writes a duration as a document has it: 3s, 200ms, 10m, not 10m0s.
func words(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
