package core

import (
	"fmt"
	"strings"
)

// Prospect says whether a node could be fenced for a service if it were lost right now.
type Prospect struct {
	OK    bool
	Known bool   // somebody has tried what it hangs on; before that OK false says little
	Why   string // what can't be proven, and why not; also while OK, of the proofs that the policy can do without
}

// Fenceable judges by what the other nodes last found of the node's BMC and of their own right to cut clients off. What
// a node says of itself counts for nothing: it would be gone. It is a forecast for people and for placement: no proof
// and no order stands on it.
func Fenceable(s State, v View, node NodeName, service ServiceName) Prospect {
	policy := s.Spec.PolicyOf(service)
	var missing []string
	known := true
	for _, kind := range policy.Proofs {
		why, tried := s.provable(v, node, service, kind)
		if why != "" {
			missing = append(missing, fmt.Sprintf("%s: %s", kind, why))
			known = known && tried
		}
	}
	ok := len(missing) < len(policy.Proofs) && (policy.Require != RequireAll || len(missing) == 0)
	return Prospect{OK: ok, Known: ok || known, Why: strings.Join(missing, "; ")}
}

// provable says why nobody could read such a proof of the node, empty if somebody could.
func (s *State) provable(v View, node NodeName, service ServiceName, kind ProofKind) (why string, tried bool) {
	switch kind {
	case ProofBMCOff:
		spec := s.Spec.Node(node)
		if spec == nil || spec.BMC == nil {
			return "it has no BMC in the cluster document", true
		}
		return s.BMCFound(v, node)
	case ProofStorage:
		return s.firstProblem(v, node, func(r *Report) (string, bool) {
			ready, asked := r.Ready[service]
			switch {
			case !asked || ready.MayCut():
				return "", asked
			case ready.Reason != "":
				return ready.Reason, true
			}
			return "has not been seen to cut a client off", true
		})
	case ProofRebooted, ProofWatchdog, ProofHuman:
	}
	return "nobody can count on it beforehand", true
}

// BMCFound says what the other nodes last found wrong with a node's BMC, empty if one of them could use it. tried is
// false as long as none of them has tried.
func (s *State) BMCFound(v View, node NodeName) (problem string, tried bool) {
	return s.firstProblem(v, node, func(r *Report) (string, bool) {
		problem, tried := r.BMCs[node]
		return problem, tried
	})
}

// firstProblem asks every other node that could carry out a fence of this one: a good answer ends it, else the first
// bad one counts.
func (s *State) firstProblem(v View, node NodeName, ask func(*Report) (string, bool)) (problem string, tried bool) {
	for _, name := range s.NodeNames() {
		by := v.Nodes[name]
		if name == node || by.Live != LiveOnline || !by.Daemon || by.Report == nil {
			continue
		}
		switch found, ok := ask(by.Report); {
		case !ok:
		case found == "":
			return "", true
		case !tried:
			problem, tried = fmt.Sprintf("%s says: %s", name, found), true
		}
	}
	if !tried {
		return "no other node has tried it yet", false
	}
	return problem, true
}
