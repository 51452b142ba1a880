package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Style says how text is to look.
type Style struct {
	Color bool      // the output is a terminal
	Width int       // columns to wrap at, 0: 96
	Now   time.Time // for "12 min ago"
}

const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
	dim    = "2"
)

func (s Style) paint(code, text string) string {
	if !s.Color || code == "" || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s Style) width() int {
	if s.Width <= 0 {
		return 96
	}
	return max(s.Width, 40)
}

// ago writes how long ago an RFC 3339 time was.
func (s Style) ago(text string) string {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return "-"
	}
	return duration(max(0, s.Now.Sub(at).Seconds()))
}

// Text writes a Status for a person: what runs where since when, then what is wrong and what to do next.
func Text(w io.Writer, s Status, style Style) error {
	p := printer{style: style}
	p.head(s)
	p.services(s)
	p.nodes(s)
	p.pacemaker(s.Pacemaker)
	for _, r := range s.Requests {
		p.line("Going on: request %d, %s, asked by %s. %s", r.ID, r.What, r.By, r.Now)
	}
	p.problems(s.Problems)
	_, err := io.WriteString(w, p.b.String())
	return err
}

type printer struct {
	b     strings.Builder
	style Style
}

func (p *printer) line(format string, args ...any) {
	p.b.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), " ") + "\n")
}

func (p *printer) head(s Status) {
	if s.Cluster == "" {
		p.line("%s", p.style.paint(yellow, "This node has nothing of its cluster yet: it was just founded, or waits for the others."))
		return
	}
	quorum := p.style.paint(green, "quorum")
	if !s.Quorum {
		quorum = p.style.paint(red, "NO QUORUM")
	}
	leader := s.Leader
	if leader == "" {
		leader = "nobody"
	}
	p.line("%s   %s   led by %s   managed by %s   %s", p.style.paint(bold, s.Cluster), quorum, leader, s.Manager,
		p.style.paint(dim, s.Seen.At.Local().Format("15:04:05")))
	if !s.Seen.FromLeader {
		p.line("%s", p.style.paint(yellow, "Seen by "+s.Seen.By+" alone, as far as it knows: no leader answered."))
	}
	if m := s.Maintenance; m != nil {
		until := m.Until
		if at, err := time.Parse(time.RFC3339, m.Until); err == nil {
			until = at.Local().Format("Mon 15:04:05")
		}
		p.line("%s", p.style.paint(yellow, fmt.Sprintf("Maintenance until %s (%s): nothing is started, moved or fenced.", until, m.Reason)))
	}
}

func (p *printer) services(status Status) {
	if len(status.Services) == 0 {
		p.line("\nNo service yet: add a [[service]] to the cluster document.")
		p.line("  → keepone config show --document, edit, keepone config apply")
		return
	}
	t := table{{{text: "SERVICE"}, {text: "STATE"}, {text: "HOLDER"}, {text: "FOR"}, {text: "EPOCH"}, {text: "ADDRESS"}, {text: "COULD TAKE OVER"}}}
	for _, s := range status.Services {
		t = append(t, []cell{
			{s.Name, bold},
			state(s.State, status.Seen.FromLeader || s.Holder == status.Seen.By),
			{text: dash(s.Holder)},
			{text: p.style.ago(s.Since)},
			{text: fmt.Sprint(s.Epoch)},
			{text: dash(strings.Join(s.Addresses, " "))},
			{text: dash(strings.Join(s.Next, " "))},
		})
	}
	p.table(t)
}

// state is a state with its colour, and a question mark where nobody could have told that it is still so.
func state(text string, sure bool) cell {
	if !sure {
		return cell{text + "?", yellow}
	}
	return cell{text, stateColor(text)}
}

func stateColor(state string) string {
	switch state {
	case StateRunning, "online":
		return green
	case StateStarting, StatePromoted, StateStopping, StateWaiting, StateStopped, "suspect", "new":
		return yellow
	}
	return red
}

func (p *printer) nodes(status Status) {
	if len(status.Nodes) == 0 {
		return
	}
	t := table{{{text: "NODE"}, {text: "STATE"}, {text: "FOR"}, {text: "HEARD"}, {text: "LINKS"}, {text: "BMC"}, {text: "STORAGE"}, {text: ""}}}
	guarded := slices.ContainsFunc(status.Nodes, func(n Node) bool { return n.Watchdog > 0 })
	if guarded {
		t[0] = slices.Insert(t[0], len(t[0])-1, cell{text: "WATCHDOG"})
	}
	for _, n := range status.Nodes {
		t = append(t, []cell{
			{n.Name, bold},
			state(n.State, status.Seen.FromLeader || n.Heard),
			{text: p.style.ago(n.Since)},
			{text: heard(n)},
			{text: links(n)},
			short(n.BMC, "ready", "none"), storage(n),
			{remarks(n), yellow},
		})
		if row := t[len(t)-1]; guarded {
			t[len(t)-1] = slices.Insert(row, len(row)-1, watchdog(n))
		}
	}
	p.table(t)
}

// watchdog is shown where any node has one: another that has none is not covered by it.
func watchdog(n Node) cell {
	if n.Watchdog == 0 {
		return cell{"not armed", yellow}
	}
	return cell{text: duration(n.Watchdog)}
}

func heard(n Node) string {
	if n.State == "new" {
		return "never"
	}
	return duration(n.Silent) + " ago"
}

func links(n Node) string {
	up := 0
	for _, link := range n.Links {
		if link.Up {
			up++
		}
	}
	return fmt.Sprintf("%d of %d", up, len(n.Links))
}

// short is a good word, or "problem": the sentence about it comes below.
func short(text string, good ...string) cell {
	for _, word := range good {
		if text == word {
			return cell{text: text}
		}
	}
	return cell{"problem", red}
}

func storage(n Node) cell {
	if n.Witness {
		return cell{text: "-"}
	}
	ready := 0
	for _, s := range n.Storage {
		if s.Ready {
			ready++
		}
	}
	switch {
	case len(n.Storage) == 0:
		return cell{text: "unknown"}
	case ready == len(n.Storage):
		return cell{text: "ready"}
	}
	return cell{"not ready", red}
}

func remarks(n Node) string {
	var list []string
	if n.Witness {
		list = append(list, "witness")
	}
	if n.Standby {
		list = append(list, "drained")
	}
	if slices.ContainsFunc(n.Fencing, func(f Fencing) bool { return f.Tried && !f.Possible }) {
		list = append(list, "can't be fenced")
	}
	return strings.Join(list, ", ")
}

func (p *printer) problems(problems []Problem) {
	if len(problems) == 0 {
		p.line("\n%s", p.style.paint(green, "Nothing is wrong."))
		return
	}
	p.line("")
	for _, problem := range problems {
		p.wrap(p.style.paint(red, "!")+" ", "  ", problem.About+": "+problem.Text+".", 2)
		p.wrap("  → ", "    ", problem.Next, 4)
	}
}

// wrap writes text between margins, at words. first stands before the first line and takes indent columns.
func (p *printer) wrap(first, rest, text string, indent int) {
	line, prefix, used := "", first, indent
	for _, word := range strings.Fields(text) {
		size := utf8.RuneCountInString(word)
		if line != "" && used+1+size > p.style.width() {
			p.line("%s%s", prefix, line)
			line, prefix, used = "", rest, indent
		}
		if line != "" {
			line += " "
			used++
		}
		line += word
		used += size
	}
	p.line("%s%s", prefix, line)
}

// cell is a text and its colour.
type cell struct{ text, color string }

// table is rows of cells, the first its head.
type table [][]cell

func (p *printer) table(t table) {
	widths := make([]int, len(t[0]))
	for _, row := range t {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	p.line("")
	for r, row := range t {
		var b strings.Builder
		for i, c := range row {
			color := c.color
			if r == 0 {
				color = dim
			}
			b.WriteString(p.style.paint(color, c.text))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+3))
			}
		}
		p.line("%s", b.String())
	}
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// ServicesText writes the services alone.
func ServicesText(w io.Writer, s Status, style Style) error {
	p := printer{style: style}
	p.services(s)
	_, err := io.WriteString(w, strings.TrimPrefix(p.b.String(), "\n"))
	return err
}

// NodesText writes the nodes alone.
func NodesText(w io.Writer, s Status, style Style) error {
	p := printer{style: style}
	p.nodes(s)
	_, err := io.WriteString(w, strings.TrimPrefix(p.b.String(), "\n"))
	return err
}
