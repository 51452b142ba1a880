package core

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// update has the timelines of test/scenario written anew, to be read before they are kept: make golden.
var update = os.Getenv("GOLDEN") == "write"

// TestStories replays each story and compares what the history tells with the timeline that was read and kept.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("../../test/scenario/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			tell(t, file)
		})
	}
}

func tell(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]string{}
	for _, f := range archive.Files {
		parts[f.Name] = string(f.Data)
	}
	w, err := play(parts["script"])
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range w.broken {
		t.Error(line)
	}
	got := strings.Join(w.lines, "\n") + "\n" + w.end()
	if update && len(w.broken) == 0 {
		for i := range archive.Files {
			if archive.Files[i].Name == "want" {
				archive.Files[i].Data = []byte(got)
			}
		}
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != parts["want"] {
		t.Errorf("the timeline differs; got:\n%s", got)
	}
}
