package sim

import (
	"fmt"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
)

const (
	storyLines  = 60 // of the end of a trace
	storyScript = "script"
)

// Story writes an outcome as a scenario file: what goes wrong, how to play it again, and the end of its trace.
func (o Outcome) Story() []byte {
	words := strings.Join(o.Broken, "\n")
	if o.Stalled != "" {
		words += o.Stalled
	}
	lines := o.Lines[max(0, len(o.Lines)-storyLines):]
	return txtar.Format(&txtar.Archive{Files: []txtar.File{
		{Name: "story", Data: []byte(fmt.Sprintf("Found by seed %d: %s\n", o.Plan.Shape.Seed, words))},
		{Name: storyScript, Data: []byte(o.Plan.String())},
		{Name: "trace", Data: []byte(strings.Join(lines, "\n") + "\n")},
	}})
}

// ReadStory reads the plan of a scenario file.
func ReadStory(text []byte) (Plan, error) {
	for _, f := range txtar.Parse(text).Files {
		if f.Name == storyScript {
			return Parse(string(f.Data))
		}
	}
	return Plan{}, fmt.Errorf("the story has no part %q", storyScript)
}
