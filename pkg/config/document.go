package config

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// The bounds of a document.
const (
	maxNodes    = 15
	maxServices = 32 // a heartbeat names them all in one datagram
	maxDuration = 24 * time.Hour
	nodeLabel   = 63
	// serviceLabel leaves room for "ko-" in the 15 bytes of an interface's name.
	serviceLabel = 12
)

// DefaultTiming is the timing of a document that names none.
func DefaultTiming() core.Timing {
	return core.Timing{
		Heartbeat: 200 * time.Millisecond,
		Suspect:   time.Second,
		Lease:     3 * time.Second,
		// What may lie between the holder's end of lease and the leader's: two clocks that are slewed apart at
		// 500 ppm each (3 ms in a lease of 3 s), the guard's wake-up on a loaded machine, and freeze and kill
		// of the container's cgroup, measured at up to 70 ms. It races a guard's containment and must lose.
		LeaseMargin:  300 * time.Millisecond,
		Down:         3 * time.Second,
		RaftElection: 400 * time.Millisecond,
		OffReadings:  100 * time.Millisecond,
	}
}

// DefaultPolicy is the fencing policy of a document that names none.
func DefaultPolicy() core.Policy {
	return core.Policy{Require: core.RequireAny, Proofs: []core.ProofKind{core.ProofBMCOff, core.ProofStorage}}
}

// DefaultRestart bounds the restarts in place of a service that names none.
func DefaultRestart() core.RestartSpec {
	return core.RestartSpec{Failures: 3, Window: 10 * time.Minute, Backoff: time.Second, MaxBackoff: 30 * time.Second}
}

// document is a cluster document with the places of its parts.
type document struct {
	root     section
	cluster  string
	manager  core.Manager
	timing   core.Timing
	fencing  core.Policy
	clients  bool // [pacemaker] client_scope
	nodes    []nodePart
	services []servicePart
}

type nodePart struct {
	core.NodeSpec
	at    section
	links []placed
}

type servicePart struct {
	core.ServiceSpec
	at section
}

func (d document) spec() core.Spec {
	spec := core.Spec{Cluster: d.cluster, Manager: d.manager, Timing: d.timing, Fencing: d.fencing, ClientScope: d.clients}
	for _, node := range d.nodes {
		spec.Nodes = append(spec.Nodes, node.NodeSpec)
	}
	for _, service := range d.services {
		spec.Services = append(spec.Services, service.ServiceSpec)
	}
	return spec
}

func readDocument(r *reader) document {
	root := r.section()
	doc := document{
		root:    root,
		cluster: root.label("cluster", nodeLabel),
		manager: core.Manager(root.oneOf("manager", string(core.ManagerKeepone),
			string(core.ManagerKeepone), string(core.ManagerPacemaker))),
		timing:  readTiming(root.sub("timing")),
		fencing: DefaultPolicy(),
	}
	if root.has("fencing") {
		doc.fencing = readPolicy(root.sub("fencing"))
	}
	if root.has("pacemaker") {
		at := root.sub("pacemaker")
		doc.clients = at.boolean("client_scope")
		at.unknown()
	}
	for _, at := range root.list("node") {
		doc.nodes = append(doc.nodes, readNode(at))
	}
	for _, at := range root.list("service") {
		doc.services = append(doc.services, readService(at, doc.cluster))
	}
	root.unknown()
	return doc
}

func readTiming(s section) core.Timing {
	t := DefaultTiming()
	for _, d := range timingKeys(&t) {
		*d.value = s.duration(d.key, *d.value)
	}
	return t
}

// timingKey names one duration of [timing].
type timingKey struct {
	key   string
	value *time.Duration
	about string
}

func timingKeys(t *core.Timing) []timingKey {
	return []timingKey{
		{"heartbeat", &t.Heartbeat, "between two heartbeats, on each link"},
		{"suspect", &t.Suspect, "silence after which reads begin (BMC power, storage watchers)"},
		{"lease", &t.Lease, "a holder contains itself this long after its last acknowledged heartbeat"},
		{"lease_margin", &t.LeaseMargin, "added before the leader calls a lease ended"},
		{"down", &t.Down, "silence after which a fence may be ordered"},
		{"raft_election", &t.RaftElection, "Raft's heartbeat and election timeout"},
		{"off_readings", &t.OffReadings, "between the two readings of off that make a proof"},
	}
}

// readPolicy reads [fencing] or [service.fencing]: the name of a preset, or require and proofs.
func readPolicy(s section) core.Policy {
	policy := DefaultPolicy()
	switch preset := s.oneOf("policy", "default", "default", "strict"); {
	case preset == "strict":
		s.problem("policy", fmt.Sprintf(`%s = "strict" needs the watchdog proof, which this version does not have: `+
			`use "default", or require and proofs`, s.full("policy")))
	case s.has("policy") && (s.has("require") || s.has("proofs")):
		s.problem("policy", fmt.Sprintf("%s names a preset: leave out require and proofs, or leave out policy", s.full("policy")))
	}
	policy.Require = core.Require(s.oneOf("require", string(policy.Require), string(core.RequireAny), string(core.RequireAll)))
	if s.has("proofs") {
		policy.Proofs = readProofs(s)
	}
	policy.FenceableOnly = s.boolean("fenceable_only")
	return policy
}

func readProofs(s section) []core.ProofKind {
	var proofs []core.ProofKind
	seen := map[string]bool{}
	for _, p := range s.texts("proofs") {
		switch kind := core.ProofKind(p.text); {
		case seen[p.text]:
			s.r.add(p.place, "%s names %s twice", s.full("proofs"), p.text)
		case kind == core.ProofBMCOff || kind == core.ProofStorage:
			proofs = append(proofs, kind)
		case kind == core.ProofWatchdog:
			s.r.add(p.place, "%s: the watchdog proof is not in this version: use bmc-off, storage or both", s.full("proofs"))
		case kind == core.ProofRebooted || kind == core.ProofHuman:
			s.r.add(p.place, "%s: %s is accepted always: leave it out", s.full("proofs"), kind)
		default:
			s.r.add(p.place, "%s: unknown proof %q: it must be bmc-off or storage", s.full("proofs"), p.text)
		}
		seen[p.text] = true
	}
	if len(seen) == 0 {
		s.problem("proofs", fmt.Sprintf("%s is empty: a service whose holder is lost could never go on", s.full("proofs")))
	}
	return proofs
}

func readNode(s section) nodePart {
	part := nodePart{at: s, links: s.texts("links")}
	part.Name = core.NodeName(s.label("name", nodeLabel))
	part.Links = s.addrs("links")
	part.Witness = s.boolean("witness")
	if s.has("bmc") {
		bmc := s.sub("bmc")
		part.BMC = &core.BMCSpec{
			Address:     readBMCAddress(bmc),
			User:        bmc.need("user", "admin"),
			Password:    bmc.str("password", ""),
			CipherSuite: bmc.number("cipher_suite", 3, 0, 17),
			GUID:        bmc.str("guid", ""),
		}
	}
	return part
}

func readBMCAddress(s section) string {
	address := s.need("address", "10.0.9.1")
	host := address
	if h, _, err := net.SplitHostPort(address); err == nil {
		host = h
	}
	if address != "" && (host == "" || !hostName(host)) {
		s.problem("address", fmt.Sprintf("%s is %q: it must be a host or host:port", s.full("address"), address))
	}
	return address
}

func hostName(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	for _, c := range []byte(host) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.') {
			return false
		}
	}
	return true
}

// mac derives a service's MAC address: always the same for a cluster's name and a service's, locally
// administered and unicast, so that switches and neighbours learn one address whichever node holds it.
func mac(cluster, service string) string {
	sum := sha256.Sum256([]byte("keepone mac\x00" + cluster + "\x00" + service))
	address := net.HardwareAddr(sum[:6])
	address[0] = address[0]&^0x01 | 0x02
	return address.String()
}
