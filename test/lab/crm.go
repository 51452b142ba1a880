package lab

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"time"
)

// CRMView is what crm_mon shows of a Pacemaker cluster.
type CRMView struct {
	DC        string // "" if there is none
	Quorate   bool   // corosyncQuorate, as the DC has it
	Nodes     []CRMNode
	Resources []CRMResource
}

// CRMNode is a member as Pacemaker sees it.
type CRMNode struct {
	Name    string `xml:"name,attr"`
	Online  bool   `xml:"online,attr"`
	Pending bool   `xml:"pending,attr"`
	Unclean bool   `xml:"unclean,attr"`
}

// CRMResource is a primitive, in a group or not.
type CRMResource struct {
	ID     string `xml:"id,attr"`
	Role   string `xml:"role,attr"`
	Failed bool   `xml:"failed,attr"`
	Nodes  []struct {
		Name string `xml:"name,attr"`
	} `xml:"node"`
}

// IsOnline is true for a member that takes part.
func (v CRMView) IsOnline(node string) bool {
	for _, n := range v.Nodes {
		if n.Name == node {
			return n.Online && !n.Pending && !n.Unclean
		}
	}
	return false
}

// Holder is the one node on which a resource runs well; "" if it is not exactly one.
func (v CRMView) Holder(resource string) string {
	for _, r := range v.Resources {
		if r.ID == resource && !r.Failed && r.Role == "Started" && len(r.Nodes) == 1 {
			return r.Nodes[0].Name
		}
	}
	return ""
}

// crmXML is the part of `crm_mon --output-as=xml` that a CRMView is made of.
type crmXML struct {
	DC struct {
		Present bool   `xml:"present,attr"`
		Name    string `xml:"name,attr"`
		Quorum  bool   `xml:"with_quorum,attr"`
	} `xml:"summary>current_dc"`
	Nodes     []CRMNode     `xml:"nodes>node"`
	Resources []CRMResource `xml:"resources>resource"`
	Groups    []struct {
		Resources []CRMResource `xml:"resource"`
	} `xml:"resources>group"`
}

func parseCRM(text string) (CRMView, error) {
	var x crmXML
	if err := xml.Unmarshal([]byte(text), &x); err != nil {
		return CRMView{}, fmt.Errorf("parse crm_mon: %w", err)
	}
	v := CRMView{Quorate: x.DC.Present && x.DC.Quorum, Nodes: x.Nodes, Resources: x.Resources}
	if x.DC.Present {
		v.DC = x.DC.Name
	}
	for _, g := range x.Groups {
		v.Resources = append(v.Resources, g.Resources...)
	}
	return v, nil
}

// crmMonBound is for one answer of crm_mon: 50 ms on a quiet machine. Without a cluster it answers at once.
const crmMonBound = 10 * time.Second

// CRM asks Pacemaker on a node what it sees. For all else there is Exec: crm, pcs, cibadmin, crm_resource.
func (n *Node) CRM(ctx context.Context) (CRMView, error) {
	ctx, cancel := context.WithTimeout(ctx, crmMonBound)
	defer cancel()
	text, err := n.Exec(ctx, "crm_mon", "-1", "--output-as=xml")
	if err != nil {
		return CRMView{}, err
	}
	return parseCRM(text)
}

// AwaitCRM polls until the cluster is quorate with a DC, and ready finds no fault in what its first living member sees.
func (l *Lab) AwaitCRM(ctx context.Context, bound time.Duration, what string, ready func(CRMView) error) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for {
		err := l.checkCRM(ctx, ready)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", what, ctx.Err(), err)
		case <-time.After(200 * time.Millisecond): // an answer costs a core a quarter of that
		}
	}
}

func (l *Lab) checkCRM(ctx context.Context, ready func(CRMView) error) error {
	err := errors.New("no node is on")
	for _, n := range l.nodes {
		if !n.IsUp() || n.isPaused() {
			continue
		}
		var v CRMView
		if v, err = n.CRM(ctx); err != nil {
			continue // on, but not a member: another one is asked
		}
		if v.DC == "" || !v.Quorate {
			return fmt.Errorf("%s sees DC %q, quorate %v", n.Name, v.DC, v.Quorate)
		}
		return ready(v)
	}
	return err
}
