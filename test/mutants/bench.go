package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// outcome of one mutant, as it is written. KilledBy is package and test, empty if it survived.
type outcome struct {
	ID        string `json:"id"`
	Guarantee string `json:"guarantee"`
	KilledBy  string `json:"killed_by"`
}

// bench compiles and runs.
type bench struct {
	root  string
	dir   string // for overlays and binaries
	limit time.Duration
	slots chan struct{}
	rapid map[string]bool // packages with property tests

	mu  sync.Mutex
	out io.Writer
}

func (b *bench) say(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, _ = fmt.Fprintf(b.out, format+"\n", args...)
}

// all runs every mutant. It goes no further if the code as it is does not pass: then anything would be a kill.
func (b *bench) all(ctx context.Context, mutants []mutant) ([]outcome, error) {
	if err := b.findRapid(ctx, mutants); err != nil {
		return nil, err
	}
	if err := b.sound(ctx, mutants); err != nil {
		return nil, err
	}
	outcomes := make([]outcome, len(mutants))
	err := b.each(len(mutants), func(i int) (err error) {
		outcomes[i], err = b.kill(ctx, mutants[i])
		return err
	})
	return outcomes, err
}

// each calls f with 0 to n-1, as many at a time as there are slots.
func (b *bench) each(n int, f func(int) error) error {
	errs := make([]error, n)
	var work sync.WaitGroup
	for i := range n {
		b.slots <- struct{}{}
		work.Go(func() {
			defer func() { <-b.slots }()
			errs[i] = f(i)
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

// findRapid finds out which packages' tests take rapid's flags.
func (b *bench) findRapid(ctx context.Context, mutants []mutant) error {
	args := []string{"list", "-f", `{{.Dir}} {{join .TestImports " "}} {{join .XTestImports " "}}`}
	for _, dir := range packages(mutants) {
		args = append(args, "./"+dir)
	}
	out, err := b.gotool(ctx, args...)
	if err != nil {
		return err
	}
	b.rapid = map[string]bool{}
	root, err := filepath.Abs(b.root)
	if err != nil {
		return err
	}
	for _, line := range strings.Split(out, "\n") {
		if fields := strings.Fields(line); slices.Contains(fields, "pgregory.net/rapid") {
			b.rapid[strings.TrimPrefix(fields[0], root+"/")] = true
		}
	}
	return nil
}

func packages(mutants []mutant) []string {
	set := map[string]bool{}
	for _, m := range mutants {
		for _, k := range m.killers {
			set[k.dir] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// sound makes sure that all the tests that are to kill pass on the code as it is, and that each exists.
func (b *bench) sound(ctx context.Context, mutants []mutant) error {
	dirs := packages(mutants)
	return b.each(len(dirs), func(i int) error {
		var names []string
		for _, m := range mutants {
			for _, k := range m.killers {
				if k.dir == dirs[i] {
					names = append(names, k.tests...)
				}
			}
		}
		slices.Sort(names)
		k := killer{dirs[i], slices.Compact(names)}
		binary, err := b.compile(ctx, "sound-"+strings.ReplaceAll(k.dir, "/", "-"), k.dir, nil)
		if err != nil {
			return err
		}
		defer func() { _ = os.Remove(binary) }()
		out, err := b.test(ctx, binary, k.dir, k.pattern(), "-test.v")
		if err != nil {
			return fmt.Errorf("the code as it is fails in %s:\n%s", k.dir, out)
		}
		for _, name := range k.tests {
			if !strings.Contains(out, "--- PASS: "+name+" ") {
				return fmt.Errorf("%s has no test %s, or it is skipped", k.dir, name)
			}
		}
		return nil
	})
}

// kill runs the tests that are expected to fail, and only if they pass all of their packages'.
func (b *bench) kill(ctx context.Context, m mutant) (outcome, error) {
	o := outcome{ID: m.id, Guarantee: m.guarantee}
	changed, err := m.mutate(b.root)
	if err != nil {
		return o, err
	}
	began := time.Now()
	var binaries []string
	defer func() {
		for _, binary := range binaries {
			_ = os.Remove(binary)
		}
	}()
	for i, k := range m.killers {
		binary, err := b.compile(ctx, fmt.Sprintf("%s-%d", m.id, i), k.dir, changed)
		if err != nil {
			return o, fmt.Errorf("mutant %s does not compile: %w", m.id, err)
		}
		binaries = append(binaries, binary)
		out, err := b.test(ctx, binary, k.dir, k.pattern())
		if err != nil {
			o.KilledBy = k.dir + " " + failed(out)
			b.say("killed   %-28s %s by %s, %.1f s", m.id, m.guarantee, o.KilledBy, time.Since(began).Seconds())
			return o, ctx.Err()
		}
	}
	for i, k := range m.killers {
		if out, err := b.test(ctx, binaries[i], k.dir, "."); err != nil {
			o.KilledBy = k.dir + " " + failed(out)
			b.say("killed   %-28s %s by %s, not by the tests that it names", m.id, m.guarantee, o.KilledBy)
			return o, ctx.Err()
		}
	}
	b.say("SURVIVED %-28s %s: %s", m.id, m.guarantee, m.why)
	return o, ctx.Err()
}

// compile builds the tests of a package with some files replaced.
func (b *bench) compile(ctx context.Context, name, dir string, changed map[string]string) (string, error) {
	binary := filepath.Join(b.dir, name+".test")
	args := []string{"test", "-c", "-ldflags=-s -w", "-o", binary}
	if len(changed) > 0 {
		overlay, err := b.overlay(name, changed)
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", overlay)
	}
	_, err := b.gotool(ctx, append(args, "./"+dir)...)
	return binary, err
}

// overlay writes the changed files and the list of them that the go command reads.
func (b *bench) overlay(name string, changed map[string]string) (string, error) {
	replace := map[string]string{}
	for file, text := range changed {
		path, err := filepath.Abs(filepath.Join(b.root, file))
		if err != nil {
			return "", err
		}
		instead := filepath.Join(b.dir, name+"-"+strings.ReplaceAll(file, "/", "-"))
		if err := os.WriteFile(instead, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[path] = instead
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(b.dir, name+".json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}

func (b *bench) gotool(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = b.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", args[0], err, problems.String())
	}
	return out.String(), nil
}

// test runs tests where they expect to be run, always with the same seed. A test that hangs fails at the limit.
func (b *bench) test(ctx context.Context, binary, dir, pattern string, flags ...string) (string, error) {
	const end = 10 * time.Second // past the tests' own limit
	ctx, cancel := context.WithTimeout(ctx, b.limit+end)
	defer cancel()
	args := append([]string{"-test.run", pattern, "-test.failfast", "-test.timeout", b.limit.String()}, flags...)
	if b.rapid[dir] {
		args = append(args, "-rapid.seed=1", "-rapid.nofailfile", "-rapid.shrinktime=0")
	}
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = filepath.Join(b.root, dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var failLine = regexp.MustCompile(`(?m)^ *--- FAIL: (\S+)`)

// failed names the test that failed first, with its first part that did; one that hung or crashed is named if it can be.
func failed(out string) string {
	hits := failLine.FindAllStringSubmatch(out, -1)
	name := ""
	for _, hit := range hits {
		if name == "" || strings.HasPrefix(hit[1], name+"/") {
			name = hit[1]
		}
	}
	switch {
	case name != "":
		return name
	case strings.Contains(out, "test timed out"):
		return "deadline"
	}
	return "crash"
}
