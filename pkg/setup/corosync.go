package setup

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Corosync is what corosync.conf is to say.
type Corosync struct {
	Cluster   string
	Token     time.Duration
	Consensus time.Duration
	Timing    core.Timing // that Token and Consensus fit
	Members   []Member
}

// Member is a node of corosync's list.
type Member struct {
	Name  core.NodeName
	ID    int
	Links []netip.Addr
}

const (
	maxLinks = 2 // of a node, each a knet link
	minToken = time.Second
	// askLead is Pacemaker's own way from a new membership to the call of the fence agent, measured at 0.3 to 0.6 s.
	askLead = 800 * time.Millisecond
)

// newCorosync fits corosync's timing to keepone's. A token is as long as keepone's suspect bound: what keepone takes for
// a blip costs no membership either. Token and consensus together, which is when corosync calls a node lost, lie ahead
// of keepone's down bound by what Pacemaker needs to ask for the fence: later would add to every failover, sooner
// would have nodes shot for a silence that keepone forgives. Consensus is 1.2 × token at least (corosync.conf(5)).
func newCorosync(spec core.Spec) Corosync {
	token := max(spec.Timing.Suspect, minToken)
	c := Corosync{
		Cluster: spec.Cluster, Timing: spec.Timing, Token: token,
		Consensus: max(token*6/5, spec.Timing.Down-token-askLead),
	}
	for i, n := range spec.Nodes {
		c.Members = append(c.Members, Member{Name: n.Name, ID: i + 1, Links: n.Links[:min(len(n.Links), maxLinks)]})
	}
	return c
}

// Text is the block for corosync.conf.
func (c Corosync) Text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	t := c.Timing
	line("# corosync.conf of cluster %s, the same on every node. Made by `keepone pacemaker setup --format corosync`.", c.Cluster)
	line("# The key comes from corosync-keygen: /etc/corosync/authkey, the same on every node.")
	line("totem {")
	line("\tversion: 2")
	line("\tcluster_name: %s", c.Cluster)
	line("\ttransport: knet")
	line("\tcrypto_cipher: aes256")
	line("\tcrypto_hash: sha256")
	line("")
	line("\t# How this fits keepone's timing (suspect %s, lease %s, down %s):", t.Suspect, t.Lease, t.Down)
	line("\t# a silence shorter than token costs nothing, as one shorter than suspect costs keepone nothing.")
	line("\ttoken: %d", c.Token.Milliseconds())
	line("\t# The default adds 650 ms to token for every node above two, and detection with it.")
	line("\ttoken_coefficient: 0")
	line("\t# A node is lost after token + consensus, %s. Pacemaker then needs about half a second to ask for the", c.Token+c.Consensus)
	line("\t# fence, and keepone may order one at down, %s: neither waits long for the other, and nobody is shot", t.Down)
	line("\t# for a silence that keepone forgives. 1.2 × token is the least that corosync takes.")
	line("\tconsensus: %d", c.Consensus.Milliseconds())
	line("}")
	line("quorum {")
	line("\tprovider: corosync_votequorum")
	line("}")
	line("nodelist {")
	for _, m := range c.Members {
		line("\tnode {")
		line("\t\tname: %s", m.Name)
		line("\t\tnodeid: %d", m.ID)
		for i, link := range m.Links {
			line("\t\tring%d_addr: %s", i, link)
		}
		line("\t}")
	}
	line("}")
	line("logging {")
	line("\tto_syslog: yes")
	line("\ttimestamp: hires")
	line("}")
	return b.String()
}
