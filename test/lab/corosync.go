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
	text, err := os.ReadFile(n.Path(corosyncLog))
	if err != nil {
		return time.Time{}, fmt.Errorf("read corosync's log of %s: %w", n.Name, err)
	}
	for line := range strings.Lines(string(text)) {
		at, left, ok := parseMembership(line, after)
		if ok && !at.Before(after) && slices.Contains(left, strconv.Itoa(other.Index)) {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("corosync of %s formed no membership without %s", n.Name, other.Name)
}

// parseMembership reads a line of corosync's log that tells of a new membership: when, and the ids of those that left.
// The log has no year: it is that of near.
func parseMembership(line string, near time.Time) (at time.Time, left []string, ok bool) {
	const layout = "Jan 02 15:04:05.000"
	if len(line) < len(layout) || !strings.Contains(line, "A new membership") {
		return at, nil, false
	}
	at, err := time.ParseInLocation(layout, line[:len(layout)], near.Location())
	if err != nil {
		return at, nil, false
	}
	_, rest, _ := strings.Cut(line, "Members left: ")
	return at.AddDate(near.Year(), 0, 0), strings.Fields(rest), true
}
