package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// checkDocument adds what is wrong between the parts of a document.
func checkDocument(r *reader, doc document, opts Options) {
	checkTiming(doc)
	checkMembers(doc)
	checkTaken(r, doc)
	checkSecrets(doc, opts)
	for _, service := range doc.services {
		checkPlacement(r, doc, service)
		checkFenceable(doc, service)
	}
}

// electionBound is how long a cluster may be without a leader that acknowledges heartbeats: the silent leader
// is noticed within two timeouts, and an election takes up to two more, as each is drawn between one and two.
func electionBound(t core.Timing) time.Duration { return 4 * t.RaftElection }

func checkTiming(doc document) {
	t := doc.timing
	at := doc.root.sub("timing")
	for _, rule := range []struct {
		broken     bool
		key        string
		rule, have string
	}{
		{
			3*t.Heartbeat > t.Suspect, "suspect", "suspect must be at least 3 × heartbeat, so that one lost datagram costs nothing",
			fmt.Sprintf("suspect is %s, heartbeat %s", words(t.Suspect), words(t.Heartbeat)),
		},
		{
			t.Suspect >= t.Lease, "lease", "lease must be more than suspect",
			fmt.Sprintf("lease is %s, suspect %s", words(t.Lease), words(t.Suspect)),
		},
		{
			t.Lease > t.Down, "down", "down must be at least lease, so that a holder has contained itself before it may be shot",
			fmt.Sprintf("down is %s, lease %s", words(t.Down), words(t.Lease)),
		},
		{
			t.Lease < electionBound(t)+2*t.Heartbeat, "lease",
			"lease must be at least 4 × raft_election + 2 × heartbeat, so that a healthy holder outlives a change of leader",
			fmt.Sprintf("lease is %s, raft_election %s, heartbeat %s", words(t.Lease), words(t.RaftElection), words(t.Heartbeat)),
		},
		{
			t.LeaseMargin < 100*time.Millisecond, "lease_margin",
			"lease_margin must be at least 100ms: a guard needs time to contain", "lease_margin is " + words(t.LeaseMargin),
		},
		{t.Lease > time.Minute, "lease", "lease must be at most 1m: clocks drift apart", "lease is " + words(t.Lease)},
		{t.Heartbeat < 10*time.Millisecond, "heartbeat", "heartbeat must be at least 10ms", "heartbeat is " + words(t.Heartbeat)},
		{
			t.RaftElection < 50*time.Millisecond, "raft_election", "raft_election must be at least 50ms",
			"raft_election is " + words(t.RaftElection),
		},
		{t.OffReadings > 5*time.Second, "off_readings", "off_readings must be at most 5s", "off_readings is " + words(t.OffReadings)},
	} {
		if rule.broken {
			at.problem(rule.key, fmt.Sprintf("timing: %s; %s", rule.have, rule.rule))
		}
	}
}

// checkMembers looks at the nodes as a whole: how many there are and whether they can have a majority.
func checkMembers(doc document) {
	data := 0
	for _, node := range doc.nodes {
		if !node.Witness {
			data++
		}
		if len(node.Links) == 0 && len(node.links) == 0 {
			node.at.problem("links", fmt.Sprintf("node %s has no links: links = [\"10.0.0.1\"]", node.Name))
		}
		if len(node.Links) != len(doc.nodes[0].Links) && len(node.links) > 0 {
			node.at.problem("links", fmt.Sprintf("node %s has %s and node %s has %s: every node has one address for each link",
				node.Name, count(len(node.Links), "link"), doc.nodes[0].Name, count(len(doc.nodes[0].Links), "link")))
		}
	}
	switch {
	case len(doc.nodes) == 0:
		doc.root.problem("node", "no node: a cluster needs at least one [[node]]")
	case data == 0:
		doc.root.problem("node", "every node is a witness: no service could run")
	case len(doc.nodes) == 2:
		doc.nodes[1].at.problem("name", "two nodes can't tell a dead neighbour from a cut cable: add a third [[node]], "+
			"which may be small and have witness = true")
	case len(doc.nodes) > maxNodes:
		doc.nodes[maxNodes].at.problem("name", fmt.Sprintf("%d nodes: at most %d are allowed", len(doc.nodes), maxNodes))
	}
	if len(doc.services) > maxServices {
		doc.services[maxServices].at.problem("name", fmt.Sprintf("%d services: at most %d are allowed", len(doc.services), maxServices))
	}
}

// taken tells what may be used once.
type taken map[string]struct {
	by string
	place
}

func (t taken) claim(r *reader, what, key, by string, where place) {
	if have, ok := t[what+key]; ok {
		r.add(where, "%s %s of %s is also %s's, line %d", what, key, by, have.by, have.line)
		return
	}
	t[what+key] = struct {
		by string
		place
	}{by, where}
}

// checkTaken refuses what two parts of the document both claim.
func checkTaken(r *reader, doc document) {
	used := taken{}
	name := func(kind, name string, at section) {
		if have, ok := used[kind+name]; ok {
			r.add(at.at("name"), "two %ss are named %s: the other is on line %d", kind, name, have.line)
		}
		used.claim(&reader{}, kind, name, "", at.at("name"))
	}
	for _, node := range doc.nodes {
		if node.Name != "" {
			name("node", string(node.Name), node.at)
		}
		for i, link := range node.Links {
			where := node.at.at("links")
			if i < len(node.links) {
				where = node.links[i].place
			}
			used.claim(r, "address", link.String(), "node "+string(node.Name), where)
		}
		if node.BMC != nil && node.BMC.Address != "" {
			bmc := node.at.sub("bmc")
			used.claim(r, "BMC address", node.BMC.Address, "node "+string(node.Name), bmc.at("address"))
			if node.BMC.GUID != "" {
				used.claim(r, "BMC GUID", strings.ToLower(node.BMC.GUID), "node "+string(node.Name), bmc.at("guid"))
			}
		}
	}
	for _, service := range doc.services {
		if service.Name != "" {
			name("service", string(service.Name), service.at)
		}
		claimService(r, used, service)
	}
}

func claimService(r *reader, used taken, service servicePart) {
	by := "service " + string(service.Name)
	network, volume := service.at.sub("network"), service.at.sub("volume")
	if service.Volume.Image != "" {
		used.claim(r, "volume", volumeName(service.Volume), by, volume.at("image"))
	}
	if network.has("mac") {
		used.claim(r, "MAC", service.Network.MAC, by, network.at("mac"))
	}
	for _, prefix := range service.Network.Addresses {
		used.claim(r, "address", prefix.Addr().String(), by, network.at("addresses"))
	}
}

func volumeName(v core.VolumeSpec) string {
	if v.Namespace != "" {
		return v.Pool + "/" + v.Namespace + "/" + v.Image
	}
	return v.Pool + "/" + v.Image
}

// checkSecrets refuses passwords that are missing, or in clear where they must be sealed. No message ever
// holds a password.
func checkSecrets(doc document, opts Options) {
	check := func(s section, password, whose string) {
		switch {
		case password == "":
			s.problem("password", whose+" has no password: password = \"...\" (it is sealed before it leaves this node)")
		case opts.Sealed && !strings.HasPrefix(password, SealedPrefix):
			s.problem("password", whose+" has its password in clear: only sealed passwords are replicated")
		}
	}
	for _, node := range doc.nodes {
		if node.BMC != nil {
			check(node.at.sub("bmc"), node.BMC.Password, fmt.Sprintf("the BMC of node %s", node.Name))
		}
	}
	for _, service := range doc.services {
		for i, at := range service.at.list("probe") {
			if probe := service.Probes[i]; probe.User != "" || probe.Password != "" || probe.Kind == "opennebula" {
				check(at, probe.Password, fmt.Sprintf("the %s probe of service %s", probe.Kind, service.Name))
				if probe.User == "" {
					at.problem("user", fmt.Sprintf("the %s probe of service %s has no user", probe.Kind, service.Name))
				}
			}
		}
	}
}

// checkPlacement refuses a service that names nodes that are not there, or that no node may host.
func checkPlacement(r *reader, doc document, service servicePart) {
	eligible := 0
	for _, node := range doc.nodes {
		if !node.Witness && (len(service.Nodes) == 0 || slices.Contains(service.Nodes, node.Name)) {
			eligible++
		}
	}
	for _, key := range []string{"nodes", "prefer"} {
		for _, p := range service.at.texts(key) {
			if why := misplaced(doc, service, key, core.NodeName(p.text)); why != "" {
				r.add(p.place, "%s of service %s names %s, %s", key, service.Name, p.text, why)
			}
		}
	}
	if eligible == 0 && len(doc.nodes) > 0 {
		service.at.problem("nodes", fmt.Sprintf("service %s has no node that may host it", service.Name))
	}
}

func misplaced(doc document, service servicePart, key string, name core.NodeName) string {
	i := slices.IndexFunc(doc.nodes, func(n nodePart) bool { return n.Name == name })
	switch {
	case i < 0:
		return "which is no node of this document"
	case doc.nodes[i].Witness:
		return "which is a witness and never holds a service"
	case key == "prefer" && len(service.Nodes) > 0 && !slices.Contains(service.Nodes, name):
		return "which is not among its nodes"
	}
	return ""
}

// checkFenceable refuses a policy that could never be met for one of the service's nodes.
func checkFenceable(doc document, service servicePart) {
	policy := doc.fencing
	if service.Policy != nil {
		policy = *service.Policy
	}
	needsBMC := slices.Contains(policy.Proofs, core.ProofBMCOff) &&
		(policy.Require == core.RequireAll || len(policy.Proofs) == 1)
	if !needsBMC || len(doc.nodes) == 1 {
		return
	}
	for _, node := range doc.nodes {
		if node.Witness || node.BMC != nil || len(service.Nodes) > 0 && !slices.Contains(service.Nodes, node.Name) {
			continue
		}
		service.at.problem("fencing", fmt.Sprintf("service %s needs the proof bmc-off, but node %s has no [node.bmc]: "+
			"add one, or accept storage alone (require = \"any\", proofs = [\"bmc-off\", \"storage\"])", service.Name, node.Name))
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
