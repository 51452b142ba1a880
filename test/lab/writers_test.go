package lab

import (
	"fmt"
	"strings"
	"testing"
)

// A client that writes again after another one did is a second writer.
func TestWriters(t *testing.T) {
	line := func(client, image, ops, result string) string {
		return fmt.Sprintf("2026-01-01T00:00:00.000+0000 7f0 1 -- [v2:10.77.0.254:6800/1,v1:10.77.0.254:6801/1] --> %s -- "+
			"osd_op_reply(23 rbd_data.%s.0000000000000001 [%s] v13'5 uv5 ondisk = %s) v8 -- 0x5 con 0x6\n", client, image, ops, result)
	}
	const a, b = "10.77.0.1:0/11", "10.77.0.2:0/12"
	var rest strings.Builder
	w := &Writers{}
	log := &lineReader{writers: w, rest: &rest}
	text := line(a, "1f", "write 0~4096", "0") + line(a, "1f", "set-alloc-hint object_size 4194304 write_size 4194304,write 4096~4096 [fadvise_dontneed]", "0") +
		line(b, "1f", "read 0~4096", "0") + line(b, "2f", "write 0~4096", "0") + line(b, "1f", "write 0~4096", "0") +
		line(a, "1f", "write 0~4096", "-108 ((108) Cannot send after transport endpoint shutdown)") + line(a, "1f", "stat", "0") + "osd.0 says something\n"
	for len(text) > 0 { // in pieces, as a pipe hands it over
		n := min(100, len(text))
		_, _ = log.Write([]byte(text[:n]))
		text = text[n:]
	}
	if len(w.turns) != 3 || w.turns[0].Writes != 2 || w.turns[2].Client != b || len(w.twice) != 0 || rest.String() != "osd.0 says something\n" {
		t.Fatalf("%+v, again %+v, rest %q", w.turns, w.twice, rest.String())
	}
	_, _ = log.Write([]byte(line(a, "1f", "write 0~4096", "0")))
	if len(w.twice) != 1 || w.twice[0].Client != a {
		t.Errorf("again %+v", w.twice)
	}
}
