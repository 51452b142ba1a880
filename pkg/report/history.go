package report

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// History is the answer of `keepone history -o json`, oldest first.
type History struct {
	Schema int     `json:"schema"`
	Events []Event `json:"events"`
}

// Event is one decision or change.
type Event struct {
	ID      uint64  `json:"id"`
	At      string  `json:"at"` // RFC 3339, by the leader's wall clock
	Kind    string  `json:"kind"`
	Service string  `json:"service"`
	Node    string  `json:"node"`
	From    string  `json:"from"`
	To      string  `json:"to"`
	Epoch   uint64  `json:"epoch"`
	Proof   string  `json:"proof"`
	Request uint64  `json:"request"`
	Fence   uint64  `json:"fence"`
	Reason  string  `json:"reason"`
	Phases  *Phases `json:"phases"` // of a start, failover or switchover

	wall    time.Time
	cluster core.Time
}

// Phases are in seconds.
type Phases struct {
	Detect  float64 `json:"detect"`
	Decide  float64 `json:"decide"`
	Fence   float64 `json:"fence"`
	Stop    float64 `json:"stop"`
	Storage float64 `json:"storage"`
	Start   float64 `json:"start"`
	Probe   float64 `json:"probe"`
	Total   float64 `json:"total"`
}

// NewHistory makes the History of a state's events. service empty: all; limit 0: all that are kept.
func NewHistory(events []core.Event, service core.ServiceName, limit int) History {
	h := History{Schema: Schema, Events: []Event{}}
	for _, e := range events {
		if service == "" || e.Service == service {
			h.Events = append(h.Events, newEvent(e))
		}
	}
	if limit > 0 && len(h.Events) > limit {
		h.Events = h.Events[len(h.Events)-limit:]
	}
	return h
}

func newEvent(e core.Event) Event {
	out := Event{
		ID: e.ID, Kind: string(e.Kind), Service: string(e.Service), Node: string(e.Node), From: string(e.From),
		To: string(e.To), Epoch: uint64(e.Epoch), Proof: string(e.Proof), Request: e.Request, Fence: e.Fence,
		Reason: e.Reason, At: e.Wall.UTC().Format("2006-01-02T15:04:05.000Z07:00"), wall: e.Wall, cluster: e.At,
	}
	if p := e.Phases; p != nil {
		out.Phases = &Phases{
			Detect: seconds(p.Detect), Decide: seconds(p.Decide), Fence: seconds(p.Fence), Stop: seconds(p.Stop),
			Storage: seconds(p.Storage), Start: seconds(p.Start), Probe: seconds(p.Probe), Total: seconds(p.Total()),
		}
	}
	return out
}

// HistoryText writes a History for a person.
func HistoryText(w io.Writer, h History, style Style) error {
	p := printer{style: style}
	if len(h.Events) == 0 {
		p.line("Nothing has happened yet.")
	}
	day := ""
	for _, e := range h.Events {
		local := e.wall.Local()
		if d := local.Format("Monday 2006-01-02"); d != day {
			day = d
			p.line("%s", style.paint(dim, day))
		}
		head := fmt.Sprintf("%s  %4d  %-10s ", local.Format("15:04:05.000"), e.ID, e.Kind)
		p.wrap(style.paint(eventColor(e.Kind), head), fmt.Sprintf("%31s", ""), e.sentence(), 31)
	}
	_, err := io.WriteString(w, p.b.String())
	return err
}

func eventColor(kind string) string {
	switch core.EventKind(kind) {
	case core.EventFailover, core.EventFailed, core.EventBlocked, core.EventFence:
		return red
	case core.EventStarted, core.EventPromoted, core.EventSwitchover:
		return green
	case core.EventNode, core.EventContained, core.EventMaintenance:
		return yellow
	}
	return ""
}

// sentence says what happened to whom.
func (e Event) sentence() string {
	about := ""
	switch {
	case e.Service != "" && e.From != "" && e.To != "" && e.From != e.To:
		about = fmt.Sprintf("%s %s → %s, epoch %d: ", e.Service, e.From, e.To, e.Epoch)
	case e.Service != "" && e.To != "":
		about = fmt.Sprintf("%s on %s, epoch %d: ", e.Service, e.To, e.Epoch)
	case e.Service != "" && e.Node != "":
		about = fmt.Sprintf("%s on %s: ", e.Service, e.Node)
	case e.Service != "":
		about = e.Service + ": "
	case e.Node != "":
		about = e.Node + ": "
	}
	text := about + e.Reason
	if e.Phases != nil && e.Phases.Total > 0 {
		text += fmt.Sprintf(" (%.2f s)", e.Phases.Total)
	}
	return text
}

// ErrNoEvent says that the history has no event of that id.
var ErrNoEvent = errors.New("no such event in the history; `keepone history` shows their ids")

// Explain writes what happened around one event in sentences: for a failover or switchover every step of it with
// the time that each phase took, for any other event the event itself and what belongs to it.
func Explain(w io.Writer, h History, id uint64, style Style) error {
	at := -1
	for i, e := range h.Events {
		if e.ID == id {
			at = i
		}
	}
	if at < 0 {
		return fmt.Errorf("explain %d: %w", id, ErrNoEvent)
	}
	e := h.Events[at]
	p := printer{style: style}
	p.wrap("", "", style.paint(bold, fmt.Sprintf("Event %d, %s", e.ID, e.wall.Local().Format("Monday 2006-01-02 15:04:05")))+". "+e.sentence()+".", 0)
	if e.Proof != "" {
		p.wrap("", "", proofWords(e), 0)
	}
	p.phases(e.Phases)
	p.steps(h.Events, related(h.Events, at), e)
	_, err := io.WriteString(w, p.b.String())
	return err
}

func proofWords(e Event) string {
	why := proofMeans(core.ProofKind(e.Proof))
	who := e.From
	if who == "" {
		who = e.Node
	}
	return fmt.Sprintf("That %s can do no more harm was proven by %s: %s.", who, e.Proof, why)
}

func (p *printer) phases(ph *Phases) {
	if ph == nil {
		return
	}
	p.line("\nWhere the %.2f s went:", ph.Total)
	for _, phase := range []struct {
		name  string
		took  float64
		about string
	}{
		{"detect", ph.Detect, "from the last heartbeat to the first evidence"},
		{"fence", ph.Fence, "from the order to an accepted proof"},
		{"stop", ph.Stop, "until the last holder had stopped and let go of the volume"},
		{"decide", ph.Decide, "until the new grant was committed"},
		{"storage", ph.Storage, "old clients cut off, lock taken, mapped, checked, mounted"},
		{"start", ph.Start, "until the container ran"},
		{"probe", ph.Probe, "until it answered"},
	} {
		if phase.took > 0 {
			p.line("  %-8s %6.2f s  %s", phase.name, phase.took, p.style.paint(dim, phase.about))
		}
	}
}

// related returns the indexes of the events that belong to the one at i: those of its service, its nodes, its
// fence and its request since the service last answered, or within the same minute.
func related(events []Event, i int) []int {
	e := events[i]
	first := i
	for first > 0 && e.cluster.Sub(events[first-1].cluster) <= time.Minute {
		before := events[first-1]
		if before.Service == e.Service && before.Service != "" && before.Phases != nil && e.Phases != nil {
			break
		}
		first--
	}
	last := i
	if e.Phases == nil {
		for last < len(events)-1 && events[last+1].cluster.Sub(e.cluster) <= time.Minute {
			last++
		}
	}
	var list []int
	for j := first; j <= last; j++ {
		if j != i && belongs(events[j], e) {
			list = append(list, j)
		}
	}
	return list
}

func belongs(other, e Event) bool {
	switch {
	case other.Service != "" && other.Service == e.Service,
		other.Request != 0 && other.Request == e.Request,
		other.Fence != 0 && other.Fence == e.Fence:
		return true
	case other.Service != "" && e.Service != "":
		return false
	}
	return other.Node != "" && (other.Node == e.Node || other.Node == e.From || other.Node == e.To)
}

func (p *printer) steps(events []Event, steps []int, e Event) {
	if len(steps) == 0 {
		return
	}
	p.line("\nWhat belongs to it:")
	for _, i := range steps {
		step := events[i]
		p.wrap(fmt.Sprintf("  %+8.2f s  ", step.cluster.Sub(e.cluster).Seconds()), "              ", step.sentence(), 14)
	}
}
