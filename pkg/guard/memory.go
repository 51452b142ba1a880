package guard

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
)

// guard.leases carries the deadlines over a restart of the guard, as readings of CLOCK_BOOTTIME in the run
// directory, which dies with the node just as they do. A file that lags behind knows earlier deadlines than the
// truth, so at worst a restarted guard contains too soon. Without the file there is no deadline at all, and what
// runs is contained at once (I5): a grace would be new at each restart, and a guard that keeps crashing would
// never contain. An activation asks the guard for its lease before it does anything, so a service that rightly
// runs has its lease in the file.
const memoryName = "guard.leases"

// Encode writes "term N", "maintenance N TERM SEQ", "until SVC EPOCH N" and "seen SVC EPOCH N" lines.
func (l *Leases) Encode() []byte {
	var b []byte
	b = fmt.Appendf(b, "keepone-leases 1\nterm %d\nmaintenance %d %d %d\n", l.term, l.maintenance, l.order.term, l.order.seq)
	appendRights := func(word string, times map[Right]boottime.Time) {
		for _, right := range slices.SortedFunc(maps.Keys(times), compareRights) {
			b = fmt.Appendf(b, "%s %s %d %d\n", word, right.Service, right.Epoch, times[right])
		}
	}
	appendRights("until", l.until)
	appendRights("seen", l.seen)
	return append(b, "end\n"...)
}

func compareRights(a, b Right) int {
	if c := strings.Compare(string(a.Service), string(b.Service)); c != 0 {
		return c
	}
	if a.Epoch < b.Epoch {
		return -1
	}
	return 1
}

var errMemory = errors.New("guard.leases is damaged")

// Decode fills l, or leaves it as it was with an error.
func (l *Leases) Decode(text string) error {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 2 || lines[0] != "keepone-leases 1" || lines[len(lines)-1] != "end" {
		return errMemory
	}
	fresh := NewLeases(l.lease)
	for _, line := range lines[1 : len(lines)-1] {
		if !fresh.decodeLine(strings.Fields(line)) {
			return fmt.Errorf("%w: %q", errMemory, line)
		}
	}
	*l = *fresh
	return nil
}

func (l *Leases) decodeLine(f []string) bool {
	numbers := make([]uint64, 0, 3)
	first := 1
	if len(f) > 0 && (f[0] == "until" || f[0] == "seen") {
		first = 2
	}
	for _, field := range f[min(first, len(f)):] {
		n, err := strconv.ParseUint(field, 10, 63)
		if err != nil {
			return false
		}
		numbers = append(numbers, n)
	}
	switch {
	case len(f) == 2 && f[0] == "term":
		l.term = numbers[0]
	case len(f) == 4 && f[0] == "maintenance":
		l.maintenance = boottime.Time(numbers[0])
		l.order = ackOrder{numbers[1], numbers[2]}
	case len(f) == 4 && f[0] == "until":
		l.until[Right{core.ServiceName(f[1]), core.Epoch(numbers[0])}] = boottime.Time(numbers[1])
	case len(f) == 4 && f[0] == "seen":
		l.seen[Right{core.ServiceName(f[1]), core.Epoch(numbers[0])}] = boottime.Time(numbers[1])
	default:
		return false
	}
	return true
}

// loadMemory takes up what an earlier guard of this life knew; an error says that it knew nothing.
func (l *Leases) loadMemory(runDir string) error {
	text, err := os.ReadFile(filepath.Join(runDir, memoryName))
	if err != nil {
		return fmt.Errorf("load leases: %w", err)
	}
	return l.Decode(string(text))
}

// saveMemory replaces the file as one. Its name is fixed and the guard alone writes it, so a rest of a crash is
// overwritten.
func (l *Leases) saveMemory(runDir string) error {
	if err := replaceFile(filepath.Join(runDir, memoryName), l.Encode()); err != nil {
		return fmt.Errorf("save leases: %w", err)
	}
	return nil
}

func replaceFile(path string, content []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
