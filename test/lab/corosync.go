package lab

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
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
