package report

import (
	"fmt"
	"io"
)

// Local is what one node knows without its daemon: the answer of `keepone status -o json` there.
type Local struct {
	Schema      int            `json:"schema"`
	Quorum      bool           `json:"quorum"` // always false: nobody could tell
	Node        string         `json:"node"`
	Daemon      string         `json:"daemon"` // why it does not answer
	Guard       string         `json:"guard"`  // "answers", or why not
	Leader      string         `json:"leader"` // of the newest acknowledgement that the guard got
	AckAge      float64        `json:"ackAgeSeconds"`
	Maintenance float64        `json:"maintenanceSeconds"` // left of it
	Watchdog    string         `json:"watchdog"`           // "armed", why not, or empty: none is wanted
	Problem     string         `json:"problem"`
	Services    []LocalService `json:"services"`
}

// LocalService is what a node knows of a service that has a record there.
type LocalService struct {
	Name   string  `json:"name"`
	Epoch  uint64  `json:"epoch"`
	State  string  `json:"state"` // what the kernel shows
	Reason string  `json:"reason"`
	Since  string  `json:"since"` // of the record
	Guard  string  `json:"guard"` // what the guard says of it
	Lease  float64 `json:"leaseSeconds"`
}

// LocalText writes a Local for a person.
func LocalText(w io.Writer, l Local, style Style) error {
	p := printer{style: style}
	p.wrap("", "", style.paint(red, "No daemon answers on this node, so its quorum is not known.")+" This is what the node "+l.Node+" knows by itself.", 0)
	switch {
	case l.Guard != "answers":
		p.wrap("! ", "  ", "The guard does not answer either: "+l.Guard, 2)
		p.wrap("  → ", "    ", "systemctl status keepone-guard", 4)
	case l.AckAge < 0:
		p.line("The guard answers; no leader has acknowledged its heartbeats yet.")
	default:
		p.line("The guard answers; %s acknowledged its heartbeats %s ago.", dash(l.Leader), duration(l.AckAge))
	}
	if l.Maintenance > 0 {
		p.line("Maintenance for another %s: leases are not enforced.", duration(l.Maintenance))
	}
	if l.Watchdog != "" && l.Watchdog != "armed" {
		p.wrap("! ", "  ", "Its watchdog is not armed: "+l.Watchdog, 2)
	}
	if l.Problem != "" {
		p.wrap("! ", "  ", l.Problem, 2)
	}
	if len(l.Services) == 0 {
		p.line("\nNo service was started here since this node booted.")
	} else {
		t := table{{{text: "SERVICE"}, {text: "HERE"}, {text: "FOR"}, {text: "EPOCH"}, {text: "LEASE"}, {text: ""}}}
		for _, s := range l.Services {
			t = append(t, []cell{{s.Name, bold}, {text: s.State}, {text: style.ago(s.Since)}, {text: fmt.Sprint(s.Epoch)}, {text: lease(s)}, {text: s.Reason}})
		}
		p.table(t)
	}
	p.line("")
	p.wrap("! ", "  ", l.Daemon, 2)
	p.wrap("  → ", "    ", "start the daemon (systemctl start keeponed), or ask another node: keepone status", 4)
	_, err := io.WriteString(w, p.b.String())
	return err
}

func lease(s LocalService) string {
	switch {
	case s.Guard == "":
		return "-"
	case s.Lease <= 0:
		return "ended " + duration(-s.Lease) + " ago"
	}
	return duration(s.Lease)
}
