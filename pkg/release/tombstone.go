package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Tombstone and marks are append-only lines "<epoch> <attempt> <words>". The highest tombstone counts, so it
// can't be lowered, whoever writes at the same time: no lock is needed, and none can be held by a process that
// was paused (I7).

// LeaseEnded is the guard's reason for a tombstone.
const LeaseEnded = "lease has ended"

// Tombstone says that nothing of service at or below (epoch, attempt) may go on. A higher one passes.
func Tombstone(runDir string, service core.ServiceName, epoch core.Epoch, attempt int, reason string) error {
	if buried, _, err := Buried(runDir, service, epoch, attempt); err == nil && buried {
		return nil
	}
	if err := appendLine(runDir, service, "tombstone", epoch, attempt, reason); err != nil {
		return fmt.Errorf("write tombstone: %w", err)
	}
	return nil
}

// Buried reports whether service at (epoch, attempt) must not go on, and why. With an error the answer is not
// known and the caller must not go on either.
func Buried(runDir string, service core.ServiceName, epoch core.Epoch, attempt int) (bool, string, error) {
	lines, err := readLines(runDir, service, "tombstone")
	if err != nil {
		return true, "tombstone can't be read", fmt.Errorf("read tombstone: %w", err)
	}
	for _, l := range lines {
		if l.epoch > epoch || (l.epoch == epoch && l.attempt >= attempt) {
			return true, l.words, nil
		}
	}
	return false, "", nil
}

// Marks say how far the take-down of one epoch and attempt has come.
type Marks struct {
	Halted    bool   // its init was asked to shut down
	Contained bool   // no process of it can run and its link is down
	Dirty     bool   // writing back, unmounting or unmapping failed or was forced: it is never vacated
	Vacated   bool   // and unmounted, unmapped, without error or timeout
	Reason    string // of the newest mark
}

// MarkKind is one of the things that Marks collect.
type MarkKind string

// The kinds of mark.
const (
	MarkHalted    MarkKind = "halted"
	MarkContained MarkKind = "contained"
	MarkDirty     MarkKind = "dirty"
	MarkVacated   MarkKind = "vacated"
)

// Mark notes kind for (epoch, attempt), for ever in this life. It is kept apart from the record, so that a late
// stop of an old attempt never overwrites the record of a new one.
func Mark(runDir string, service core.ServiceName, epoch core.Epoch, attempt int, kind MarkKind, reason string) error {
	marks, err := ReadMarks(runDir, service, epoch, attempt)
	if err == nil && marks.has(kind) {
		return nil
	}
	if err := appendLine(runDir, service, "marks", epoch, attempt, string(kind)+" "+reason); err != nil {
		return fmt.Errorf("write mark: %w", err)
	}
	return nil
}

// ReadMarks collects the marks of (epoch, attempt).
func ReadMarks(runDir string, service core.ServiceName, epoch core.Epoch, attempt int) (Marks, error) {
	lines, err := readLines(runDir, service, "marks")
	if err != nil {
		return Marks{}, fmt.Errorf("read marks: %w", err)
	}
	var m Marks
	for _, l := range lines {
		if l.epoch == epoch && l.attempt == attempt {
			m.set(l.words)
		}
	}
	return m, nil
}

func (m Marks) has(kind MarkKind) bool {
	switch kind {
	case MarkHalted:
		return m.Halted
	case MarkContained:
		return m.Contained
	case MarkDirty:
		return m.Dirty
	case MarkVacated:
		return m.Vacated
	}
	return false
}

func (m *Marks) set(words string) {
	kind, reason, _ := strings.Cut(words, " ")
	switch MarkKind(kind) {
	case MarkHalted:
		m.Halted = true
	case MarkContained:
		m.Contained = true
	case MarkDirty:
		m.Dirty = true
	case MarkVacated:
		m.Contained, m.Vacated = true, true
	default:
		return
	}
	m.Reason = reason
}

type line struct {
	epoch   core.Epoch
	attempt int
	words   string
}

// parseLines skips what is no line: its writer knows that it failed.
func parseLines(text string) []line {
	var lines []line
	for _, raw := range strings.Split(text, "\n") {
		fields := strings.SplitN(raw, " ", 3)
		if len(fields) != 3 {
			continue
		}
		epoch, err1 := strconv.ParseUint(fields[0], 10, 64)
		attempt, err2 := strconv.Atoi(fields[1])
		if err1 == nil && err2 == nil {
			lines = append(lines, line{core.Epoch(epoch), attempt, fields[2]})
		}
	}
	return lines
}

func readLines(runDir string, service core.ServiceName, name string) ([]line, error) {
	if err := checkName(service); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(Dir(runDir, service), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseLines(string(text)), nil
}

func appendLine(runDir string, service core.ServiceName, name string, epoch core.Epoch, attempt int, words string) error {
	if err := checkName(service); err != nil {
		return err
	}
	dir := Dir(runDir, service)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	words = strings.Join(strings.Fields(words), " ")
	// The leading newline ends a line that a full file system may have cut off.
	_, err = fmt.Fprintf(f, "\n%d %d %s\n", epoch, attempt, words)
	return errors.Join(err, f.Close())
}
