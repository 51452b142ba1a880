package whatif

import (
	"slices"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// starts is how long a service took to come up so far.
type starts struct {
	Storage, Start, Probe time.Duration // medians
	count                 int           // of so many
}

// medians are those of the service's own starts that the history has. A restart in place mounts nothing, and is none.
func medians(history []core.Event, name core.ServiceName) starts {
	var storage, start, probe []time.Duration
	for _, e := range history {
		if e.Service != name || e.Phases == nil || e.Phases.Storage == 0 {
			continue
		}
		storage, start, probe = append(storage, e.Phases.Storage), append(start, e.Phases.Start), append(probe, e.Phases.Probe)
	}
	return starts{Storage: median(storage), Start: median(start), Probe: median(probe), count: len(storage)}
}

// median of none is zero.
func median(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}
