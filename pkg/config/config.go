// Package config reads the two files of a cluster: the small node file, which stays on its node, and the
// cluster document, which is replicated. Both are TOML and read strictly: what is not understood is refused,
// and every problem is told with its file and line, all of them at once. The package is pure but for LoadNode.
package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/keepone-ha/keepone/pkg/core"
)

// SealedPrefix begins every password that only the nodes of the cluster can open.
const SealedPrefix = "sealed:"

// Options say how a cluster document is read.
type Options struct {
	File   string // its name in problems
	Sealed bool   // a password in clear is a problem: true for what is replicated
}

// Problem is one thing that is wrong in a file. Line and Column count from 1, 0 means that they are not known.
type Problem struct {
	File    string
	Line    int
	Column  int
	Message string // what is wrong, where, and what to write instead
}

func (p Problem) String() string {
	switch {
	case p.Line == 0:
		return fmt.Sprintf("%s: %s", p.File, p.Message)
	case p.Column == 0:
		return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Message)
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// Problems is the error of a file that can't be used: everything that is wrong with it, in the file's order.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// err returns p as an error in the file's order, nil if nothing is wrong.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	slices.SortStableFunc(p, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return p
}

// Parse reads a cluster document and fills in every default. The error is a Problems: all that is wrong at
// once, so that nobody has to mend a document line by line. Passwords are returned as they stand in the text.
func Parse(text string, opts Options) (core.Spec, error) {
	r := newReader(opts.File, text)
	if err := r.problems.err(); err != nil && r.broken {
		return core.Spec{}, err
	}
	doc := readDocument(r)
	checkDocument(r, doc, opts)
	if err := r.problems.err(); err != nil {
		return core.Spec{}, err
	}
	return doc.spec(), nil
}

// Digest names a document's text: equal texts have equal digests.
func Digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}
