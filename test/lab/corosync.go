package lab

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	corosyncConf = "/etc/corosync/corosync.conf"
	corosyncKey  = "/etc/corosync/authkey"
	// stackEnabled stands for the links that `systemctl enable corosync pacemaker` makes.
	stackEnabled = "/etc/corosync/enabled"
	corosyncLog  = "/var/log/corosync/corosync.log"
)

// corosyncText is the configuration of every node: two knet links, and what Debian ships for the rest. totem are
// more lines of its totem section.
func (l *Lab) corosyncText(totem string) string {
	var text strings.Builder
	fmt.Fprintf(&text, `totem {
	version: 2
	cluster_name: lab
	transport: knet
	crypto_cipher: aes256
	crypto_hash: sha256
%s
}
quorum {
	provider: corosync_votequorum
}
logging {
	to_syslog: no
	to_stderr: no
	to_logfile: yes
	logfile: %s
	timestamp: hires
}
nodelist {
`, strings.TrimRight(totem, "\n"), corosyncLog)
	for _, n := range l.nodes {
		fmt.Fprintf(&text, "\tnode {\n\t\tname: %s\n\t\tnodeid: %d\n\t\tring0_addr: %s\n\t\tring1_addr: %s\n\t}\n",
			n.Name, n.Index, n.Address(0), n.Address(1))
	}
	text.WriteString("}\n")
	return text.String()
}

// writeCorosync gives every node the same configuration and key.
func (l *Lab) writeCorosync(totem string) error {
	key := make([]byte, 256)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	for _, n := range l.nodes {
		err := errors.Join(
			writeFile(n.Path(corosyncConf), l.corosyncText(totem), 0o644),
			writeFile(n.Path(corosyncKey), string(key), 0o400),
			os.MkdirAll(n.Path("/var/log/corosync"), 0o755),
		)
		if err != nil {
			return fmt.Errorf("write corosync files of %s: %w", n.Name, err)
		}
	}
	return nil
}

// corosyncAnswers is true once corosync of this node takes connections: its sockets are abstract ones. Pacemaker
// that comes too early waits for whole seconds.
func corosyncAnswers() bool {
	sockets, err := os.ReadFile("/proc/net/unix")
	return err == nil && strings.Contains(string(sockets), "@cmap") && strings.Contains(string(sockets), "@cpg")
}

// MembershipWithout is when this node's corosync first formed a membership that another node had left, after a moment.
func (n *Node) MembershipWithout(other *Node, after time.Time) (time.Time, error) {
	lines, err := n.StackLog(after)
	if err != nil {
		return time.Time{}, err
	}
	for _, line := range lines {
		_, left, ok := strings.Cut(line.Text, "Members left: ")
		if ok && strings.Contains(line.Text, "A new membership") && slices.Contains(strings.Fields(left), strconv.Itoa(other.Index)) {
			return line.At, nil
		}
	}
	return time.Time{}, fmt.Errorf("corosync of %s formed no membership without %s", n.Name, other.Name)
}

// StackLine is a line that corosync or Pacemaker logged.
type StackLine struct {
	At   time.Time // to the millisecond
	Text string
}

// StackLog is what corosync and Pacemaker of this node have logged since a moment, in order.
func (n *Node) StackLog(since time.Time) ([]StackLine, error) {
	var all []StackLine
	for _, path := range []string{corosyncLog, pacemakerLog + "/pacemaker.log"} {
		text, err := os.ReadFile(n.Path(path))
		if err != nil {
			return nil, fmt.Errorf("read log of %s: %w", n.Name, err)
		}
		for line := range strings.Lines(string(text)) {
			if l, ok := parseStackLine(line, since); ok && !l.At.Before(since) {
				all = append(all, l)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b StackLine) int { return a.At.Compare(b.At) })
	return all, nil
}

// parseStackLine reads a line that begins with its time. The logs have no year: it is that of near.
func parseStackLine(line string, near time.Time) (StackLine, bool) {
	const layout = "Jan 02 15:04:05.000"
	if len(line) < len(layout) {
		return StackLine{}, false
	}
	at, err := time.ParseInLocation(layout, line[:len(layout)], near.Location())
	return StackLine{At: at.AddDate(near.Year(), 0, 0), Text: strings.TrimSpace(line[len(layout):])}, err == nil
}
