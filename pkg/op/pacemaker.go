package op

import "time"

// Pacemaker is what the node that saw the Facts reads of Pacemaker and corosync, where those manage the cluster.
type Pacemaker struct {
	Age         time.Duration // since the newest answer of Pacemaker; negative: there was none yet
	Problem     string        // why the newest reading failed: the rest is Age old; empty: it did not
	DC          string        // empty: none
	Maintenance bool          // maintenance-mode: Pacemaker keeps its hands off
	Stonith     bool          // stonith-enabled
	Corosync    *Corosync     // nil: corosync did not answer lately
	Nodes       []PacemakerNode
	Resources   []PacemakerResource // keepone's, its file systems' and its fence devices'
	Fencing     []string            // nodes with a fence under way
	Bans        []PacemakerBan      // of these resources, that a command of Pacemaker's has left
}

// PacemakerBan keeps a resource off a node until somebody takes it back.
type PacemakerBan struct {
	Resource string
	Node     string
}

// Corosync is its membership.
type Corosync struct {
	Quorate bool
	Members []string
}

// PacemakerNode is a member.
type PacemakerNode struct {
	Name        string
	Online      bool
	Standby     bool
	Maintenance bool
	Unclean     bool
	Pending     bool
}

// PacemakerResource is a resource, or one instance of it.
type PacemakerResource struct {
	ID      string
	Agent   string
	Role    string
	Nodes   []string
	Managed bool
	Failed  bool
	Blocked bool
	// Disabled names what an operator disabled, with target-role: it, or the group or clone that it is in. Empty: nobody did.
	Disabled string
}
