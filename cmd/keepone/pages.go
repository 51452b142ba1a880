//go:build pages

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/keepone-ha/keepone/pkg/version"
)

// init makes this program, built with the tag pages, one that writes the CLI's manual pages and completions into
// a directory: `keepone DATE DIRECTORY`. The package's build runs it; what is installed does not have it.
func init() {
	if err := writePages(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "keepone pages:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func writePages(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: DATE DIRECTORY")
	}
	date, err := time.Parse(time.DateOnly, args[0])
	if err != nil {
		return fmt.Errorf("read date: %w", err)
	}
	dir := args[1]
	root := (&cli{}).command()
	root.DisableAutoGenTag = true
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	header := &doc.GenManHeader{Section: "8", Date: &date, Source: "keepone " + version.Version, Manual: "keepone"}
	if err := doc.GenManTree(root, header, dir); err != nil {
		return fmt.Errorf("write manual pages: %w", err)
	}
	return writeCompletions(root, dir)
}

func writeCompletions(root *cobra.Command, dir string) error {
	shells := map[string]func(io.Writer) error{
		"keepone.bash": func(w io.Writer) error { return root.GenBashCompletionV2(w, true) },
		"_keepone":     root.GenZshCompletion,
		"keepone.fish": func(w io.Writer) error { return root.GenFishCompletion(w, true) },
	}
	for name, write := range shells {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("write completion: %w", err)
		}
		if err := errors.Join(write(f), f.Close()); err != nil {
			return fmt.Errorf("write completion: %w", err)
		}
	}
	return nil
}
