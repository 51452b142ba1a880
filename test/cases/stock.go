package cases

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

// stock is a cluster of corosync and Pacemaker with the agents that Debian ships, on the same lab, with the same
// image, container and BMCs as keepone's. It is what keepone is measured against.
type stock struct {
	*lab.Lab
	address string
}

// stockWords says in a report what the stock stack is, with lines of corosync's totem section.
func stockWords(totem string) string {
	timing := "Debian's timeouts"
	if totem != "" {
		timing = "totem " + strings.ReplaceAll(totem, "\n", ", ") + ", Debian's timeouts for the rest"
	}
	return "Pacemaker and corosync at " + timing + " (dc-deadtime 2 s), ocf:heartbeat:Filesystem, ocf:heartbeat:lxc, " +
		"fence_ipmilan, the image by rbd-fuse in the place of ocf:ceph:rbd"
}

const (
	stockAgent     = "/usr/lib/ocf/resource.d/lab/rbd"
	stockDirectory = "/var/lib/lxc/" + service
	stockGroup     = "g-" + service
)

// formStock makes the cluster with the service running; totem as lab.Pacemaker has it.
func formStock(ctx context.Context, l *lab.Lab, totem string) (*stock, error) {
	s := &stock{Lab: l, address: lab.ServiceAddress(1)}
	if err := l.Install(stockAgent, lab.RBDAgent); err != nil {
		return nil, err
	}
	if err := s.createVolume(ctx); err != nil {
		return nil, err
	}
	resources := s.group()
	for _, n := range l.Nodes() {
		resources += n.BMC().FenceDevice()
	}
	options := map[string]string{"dc-deadtime": "2s", "stonith-enabled": "true"}
	// A node of the lab boots in milliseconds: one that joined again in the middle of a failover would disturb it.
	p := lab.Pacemaker{Totem: totem, CIB: lab.SeedCIB(options, resources, ""), Manual: true}
	if err := l.StartPacemaker(ctx, p); err != nil {
		return nil, err
	}
	return s, s.awaitReady(ctx)
}

// createVolume fills the image with what keepone's own holds: the container's config and root file system.
func (s *stock) createVolume(ctx context.Context) error {
	n := s.Node(1)
	network := fmt.Sprintf("lxc.net.0.type = veth\nlxc.net.0.link = svc0\nlxc.net.0.flags = up\nlxc.net.0.name = eth0\n"+
		"lxc.net.0.hwaddr = 02:00:00:aa:00:01\nlxc.net.0.ipv4.address = %s/24\n", s.address)
	payload := lab.Payload{Rootfs: "dir:" + stockDirectory + "/rootfs", ExtraConfig: network, Credentials: session}
	if err := s.Tarball(n.Path("/var/lib/lxc/one.tar"), payload); err != nil {
		return err
	}
	if err := s.CreateImage(ctx, service, 256); err != nil {
		return err
	}
	script := fmt.Sprintf(`set -e
export OCF_ROOT=/usr/lib/ocf OCF_RESOURCE_INSTANCE=volume OCF_RESKEY_name=%[1]s OCF_RESKEY_pool=%[2]s OCF_RESKEY_user=keepone
%[3]s start
mkfs.ext4 -q /run/rbd/%[2]s/%[1]s
mkdir -p %[4]s
mount /run/rbd/%[2]s/%[1]s %[4]s
tar -xf /var/lib/lxc/one.tar -C %[4]s
umount %[4]s
%[3]s stop`, service, lab.Pool, stockAgent, stockDirectory)
	ctx, cancel := context.WithTimeout(ctx, formLimit)
	defer cancel()
	if out, err := n.Exec(ctx, "sh", "-c", script); err != nil {
		return fmt.Errorf("fill the stock stack's volume: %w: %s", err, out)
	}
	return nil
}

// group is the service as Pacemaker's resources: image, file system, container, in this order.
func (s *stock) group() string {
	volume := primitive("volume", "lab", "rbd", map[string]string{"name": service, "pool": lab.Pool, "user": "keepone"})
	files := primitive("files", "heartbeat", "Filesystem", map[string]string{
		"device": "/run/rbd/" + lab.Pool + "/" + service, "directory": stockDirectory, "fstype": "ext4",
	})
	container := primitive(service, "heartbeat", "lxc", map[string]string{"container": service, "config": stockDirectory + "/config"})
	// It stays where it is when a node comes back.
	stickiness := lab.NVPair(stockGroup+"-stickiness", "resource-stickiness", "100")
	return fmt.Sprintf("<group id=%[1]q><meta_attributes id=\"%[1]s-meta\">%[2]s</meta_attributes>%[3]s</group>\n",
		stockGroup, stickiness, volume+files+container)
}

// primitive is one resource with the operations that its kind is commonly given.
func primitive(id, provider, kind string, params map[string]string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "<primitive id=%[1]q class=\"ocf\" provider=%[2]q type=%[3]q>\n<instance_attributes id=\"%[1]s-params\">", id, provider, kind)
	for name, value := range params {
		text.WriteString(lab.NVPair(id+"-"+name, name, value))
	}
	text.WriteString("</instance_attributes>\n<operations>")
	for _, op := range [][3]string{{"start", "0", "60s"}, {"stop", "0", "60s"}, {"monitor", "10s", "40s"}} {
		fmt.Fprintf(&text, "<op id=\"%s-%s\" name=%q interval=%q timeout=%q/>", id, op[0], op[0], op[1], op[2])
	}
	text.WriteString("</operations>\n</primitive>\n")
	return text.String()
}

// awaitReady waits until every node that is on takes part, every resource runs, the fence devices too, and the
// front-end answers.
func (s *stock) awaitReady(ctx context.Context) error {
	if err := s.AwaitPacemaker(ctx, formLimit); err != nil {
		return err
	}
	all := func(v lab.CRMView) error {
		for _, r := range v.Resources {
			if v.Holder(r.ID) == "" {
				return fmt.Errorf("%s is %s", r.ID, r.Role)
			}
		}
		return nil
	}
	if err := s.AwaitCRM(ctx, formLimit, "every resource to run", all); err != nil {
		return err
	}
	_, err := lab.AwaitAnswer(ctx, s.address, session, formLimit)
	return err
}

// holder waits until the container runs on one node.
func (s *stock) holder(ctx context.Context) (*lab.Node, error) {
	var found *lab.Node
	err := s.AwaitCRM(ctx, formLimit, "the container on a node", func(v lab.CRMView) error {
		name := v.Holder(service)
		for _, n := range s.Nodes() {
			if n.Name == name {
				found = n
				return nil
			}
		}
		return fmt.Errorf("it runs nowhere: %+v", v.Resources)
	})
	return found, err
}

// recover brings every node and BMC back, for the next run.
func (s *stock) recover(ctx context.Context) error {
	for _, n := range s.Nodes() {
		if err := errors.Join(n.BMC().Heal(ctx), n.Heal(ctx), n.PowerOn(ctx)); err != nil {
			return err
		}
		if n.PID(ctx, lab.Corosync) != 0 {
			continue
		}
		if err := n.StartPacemaker(ctx); err != nil {
			return err
		}
	}
	return s.awaitReady(ctx)
}

// stockBound is how long the stock stack may take to bring the front-end back; after that it counts as never.
const stockBound = 2 * time.Minute

// errNever says that the front-end did not come back within stockBound.
var errNever = fmt.Errorf("never within %v", stockBound)

// stockLose measures the stock stack as lose measures keepone.
func stockLose(bad func(context.Context, *lab.Node) error) func(context.Context, *stock) (sample, error) {
	return func(ctx context.Context, s *stock) (sample, error) {
		holder, err := s.holder(ctx)
		if err != nil {
			return sample{}, err
		}
		t, err := outage(ctx, s.Lab, s.address, stockBound, holder, bad)
		if err != nil && t.Answered.IsZero() && !t.Began.IsZero() && time.Since(t.Began) >= stockBound {
			return sample{}, errNever
		}
		if err != nil {
			return sample{}, err
		}
		phases, err := membership(s.Lab, t)
		return sample{Value: t.took().Seconds(), Phases: phases}, errors.Join(err, nothingLost(t.Verdict))
	}
}

// stockSwitchover measures the stock stack as measureSwitchover measures keepone: less the container's own start.
func stockSwitchover(ctx context.Context, s *stock) (sample, error) {
	holder, err := s.holder(ctx)
	if err != nil {
		return sample{}, err
	}
	to := s.Node(holder.Index%len(s.Nodes()) + 1)
	client := s.Client(ctx, s.address)
	defer client.Stop()
	if _, err := client.AwaitAck(ctx, time.Now(), 5*time.Second); err != nil {
		return sample{}, err
	}
	began := time.Now()
	if _, err := holder.Exec(ctx, "crm_resource", "--move", "--resource", stockGroup, "--node", to.Name); err != nil {
		return sample{}, err
	}
	there := func(v lab.CRMView) error {
		if now := v.Holder(service); now != to.Name {
			return fmt.Errorf("it is on %q", now)
		}
		return nil
	}
	if err := s.AwaitCRM(ctx, stockBound, "the container on "+to.Name, there); err != nil {
		return sample{}, err
	}
	if _, err := client.AwaitAck(ctx, time.Now(), 10*time.Second); err != nil {
		return sample{}, err
	}
	client.Stop()
	if _, err := to.Exec(ctx, "crm_resource", "--clear", "--resource", stockGroup); err != nil {
		return sample{}, err
	}
	start, err := startTime(ctx, to)
	if err != nil {
		return sample{}, err
	}
	v, err := client.Verify(ctx)
	return sample{Value: (client.GapAround(began).Length() - start).Seconds()}, errors.Join(err, nothingLost(v))
}

// startTime is how long the last start of the container took on a node, as Pacemaker wrote it down.
func startTime(ctx context.Context, n *lab.Node) (time.Duration, error) {
	text, err := n.Exec(ctx, "cibadmin", "--query", "--xpath",
		fmt.Sprintf("//node_state[@uname='%s']//lrm_resource[@id='%s']/lrm_rsc_op[@operation='start']", n.Name, service))
	if err != nil {
		return 0, err
	}
	var op struct {
		Milliseconds int `xml:"exec-time,attr"`
	}
	if err := xml.Unmarshal([]byte(text), &op); err != nil {
		return 0, fmt.Errorf("read the container's start of %s: %w: %s", n.Name, err, text)
	}
	return time.Duration(op.Milliseconds) * time.Millisecond, nil
}
