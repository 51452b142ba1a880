package config

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// hidden stands where a password would.
const hidden = "(hidden)"

// Effective writes a document out with every default, for `keepone config show`: a document again, but for its
// passwords, which are hidden. The thresholds of detection stand on top in words.
func Effective(spec core.Spec) string {
	w := &writer{}
	t := spec.Timing
	w.line("# Every setting, defaults included; passwords are hidden.")
	w.line("# What silence of a node does:")
	w.line("#   %-6s suspect: its BMC, its storage watchers and the other links are read", words(t.Suspect))
	w.line("#   %-6s lease: a holder contains itself; %s later the leader counts on it", words(t.Lease), words(t.LeaseMargin))
	w.line("#   %-6s down: a fence may be ordered", words(t.Down))
	w.line("")
	w.text("cluster", spec.Cluster)
	w.text("manager", string(spec.Manager))
	w.line("\n[timing]")
	for _, d := range timingKeys(&t) {
		w.line("%-24s # %s", fmt.Sprintf("%s = %s", d.key, quote(words(*d.value))), d.about)
	}
	w.line("\n[fencing]")
	w.policy(spec.Fencing)
	if spec.Manager == core.ManagerPacemaker {
		w.line("\n[pacemaker]")
		w.line("client_scope = %-11t # a node whose storage clients alone are cut off counts as fenced, if it runs nothing but keepone's resources", spec.ClientScope)
	}
	for _, node := range spec.Nodes {
		w.node(node)
	}
	for _, service := range spec.Services {
		w.service(service)
	}
	return w.b.String()
}

type writer struct{ b strings.Builder }

func (w *writer) line(format string, args ...any) { fmt.Fprintf(&w.b, format+"\n", args...) }

// text writes a key with a text, nothing where there is none.
func (w *writer) text(key, value string) {
	if value != "" {
		w.line("%s = %s", key, quote(value))
	}
}

func (w *writer) texts(key string, values []string) {
	if len(values) == 0 {
		return
	}
	quoted := make([]string, len(values))
	for i, value := range values {
		quoted[i] = quote(value)
	}
	w.line("%s = [%s]", key, strings.Join(quoted, ", "))
}

func (w *writer) duration(key string, d time.Duration) { w.text(key, words(d)) }

func (w *writer) secret(password string) {
	if password != "" {
		w.text("password", hidden)
	}
}

func (w *writer) policy(p core.Policy) {
	w.text("require", string(p.Require))
	w.texts("proofs", texts(p.Proofs))
	w.line("fenceable_only = %-9t # a node that these proofs could not be had of right now is given nothing", p.FenceableOnly)
}

func texts[T ~string](values []T) []string {
	list := make([]string, len(values))
	for i, value := range values {
		list[i] = string(value)
	}
	return list
}

func stringers[T fmt.Stringer](values []T) []string {
	list := make([]string, len(values))
	for i, value := range values {
		list[i] = value.String()
	}
	return list
}

func (w *writer) node(node core.NodeSpec) {
	w.line("\n[[node]]")
	w.text("name", string(node.Name))
	w.texts("links", stringers(node.Links))
	w.line("witness = %t", node.Witness)
	if node.BMC == nil {
		return
	}
	w.line("[node.bmc]")
	w.text("address", node.BMC.Address)
	w.text("user", node.BMC.User)
	w.secret(node.BMC.Password)
	w.line("cipher_suite = %d", node.BMC.CipherSuite)
	w.text("guid", node.BMC.GUID)
}

func (w *writer) service(s core.ServiceSpec) {
	w.line("\n[[service]]")
	w.text("name", string(s.Name))
	w.texts("nodes", texts(s.Nodes))
	w.texts("prefer", texts(s.Prefer))
	w.duration("start_limit", s.StartLimit)
	w.duration("stop_limit", s.StopLimit)
	w.line("[service.volume]")
	w.text("pool", s.Volume.Pool)
	w.text("namespace", s.Volume.Namespace)
	w.text("image", s.Volume.Image)
	w.text("fs", s.Volume.FS)
	w.text("mapper", s.Volume.Mapper)
	w.line("[service.network]")
	w.text("bridge", s.Network.Bridge)
	w.text("mac", s.Network.MAC)
	w.texts("addresses", stringers(s.Network.Addresses))
	if s.Network.Gateway != (netip.Addr{}) {
		w.text("gateway", s.Network.Gateway.String())
	}
	w.line("[service.restart]")
	w.line("failures = %d", s.Restart.Failures)
	w.duration("window", s.Restart.Window)
	w.duration("backoff", s.Restart.Backoff)
	w.duration("max_backoff", s.Restart.MaxBackoff)
	if s.Policy != nil {
		w.line("[service.fencing]")
		w.policy(*s.Policy)
	}
	for _, probe := range s.Probes {
		w.probe(probe)
	}
}

func (w *writer) probe(p core.ProbeSpec) {
	w.line("[[service.probe]]")
	w.text("kind", p.Kind)
	if p.Port != 0 {
		w.line("port = %d", p.Port)
	}
	w.text("path", p.Path)
	w.texts("command", p.Command)
	w.text("user", p.User)
	w.secret(p.Password)
	w.duration("interval", p.Interval)
	w.duration("timeout", p.Timeout)
	w.line("failures = %d", p.Failures)
}
