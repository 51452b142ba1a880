// Command sim plays seeds of the simulator and prints one line about them; what goes wrong it shortens and tells.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/keepone-ha/keepone/pkg/sim"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("sim", flag.ContinueOnError)
	o := sim.Options{Out: out}
	flags.IntVar(&o.Seeds, "seeds", 100, "how many seeds to play; 0: as many as fit")
	flags.Uint64Var(&o.First, "first", 1, "the first seed; 0: by the time of day")
	flags.DurationVar(&o.Limit, "limit", 0, "begin no seed after that time")
	flags.StringVar(&o.Save, "save", "", "folder for the stories of what goes wrong")
	flags.IntVar(&o.Jobs, "jobs", 1, "how many seeds at a time")
	flags.Uint64Var(&o.Step, "step", 1, "every how many seeds; -first 2 -step 3: those under Pacemaker")
	story := flags.String("story", "", "play this story, with all that happens, instead of seeds")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *story != "" {
		return tell(*story, out)
	}
	if o.First == 0 {
		o.First = uint64(time.Now().Unix())
	}
	if s := sim.Seeds(o); s.Violations+s.Stalls > 0 {
		return fmt.Errorf("%d violations, %d stalls", s.Violations, s.Stalls)
	}
	return nil
}

// tell plays one story.
func tell(path string, out io.Writer) error {
	text, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return err
	}
	plan, err := sim.ReadStory(text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	o := sim.Play(plan, true)
	for _, line := range o.Lines {
		fmt.Fprintln(out, line)
	}
	if o.Bad() {
		return fmt.Errorf("%s: %v %s", path, o.Broken, o.Stalled)
	}
	return nil
}
