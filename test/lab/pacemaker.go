package lab

import (
	"context"
	_ "embed"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Pacemaker says how the lab runs corosync and Pacemaker on its nodes.
type Pacemaker struct {
	Totem  string // lines of corosync's totem section, such as "token: 1000"; "" is what Debian ships
	CIB    string // every node's first CIB; SeedCIB makes one
	Manual bool   // a node that boots again waits for StartPacemaker of its own, as with disabled units
}

const (
	pacemakerHome = "/var/lib/pacemaker"
	pacemakerLog  = "/var/log/pacemaker"
	// pacemakerStop is for every resource of a node to stop; a stop that hangs has the node fenced sooner.
	pacemakerStop = time.Minute
	// crmFatal is how pacemakerd ends when it must not be started again (CRM_EX_FATAL), as systemd knows it too.
	crmFatal = 100
)

// RBDAgent is a resource agent in the place of ocf:ceph:rbd; its header says how it differs.
//
//go:embed stock/rbd
var RBDAgent []byte

// SeedCIB is a CIB for a cluster that forms: options of the cluster, and the text inside <resources> and
// <constraints>. The nodes add themselves. Its feature set is one that every Pacemaker since 2.1.5 takes.
func SeedCIB(options map[string]string, resources, constraints string) string {
	var list strings.Builder
	for name, value := range options {
		list.WriteString(NVPair("option-"+name, name, value))
	}
	return fmt.Sprintf(`<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" admin_epoch="0" epoch="1" num_updates="0">
<configuration>
<crm_config><cluster_property_set id="options">%s</cluster_property_set></crm_config>
<nodes/>
<resources>%s</resources>
<constraints>%s</constraints>
</configuration>
<status/>
</cib>
`, list.String(), resources, constraints)
}

// NVPair is one name and value as a CIB has it.
func NVPair(id, name, value string) string {
	var escaped strings.Builder
	_ = xml.EscapeText(&escaped, []byte(value)) // a strings.Builder takes everything
	return fmt.Sprintf("<nvpair id=%q name=%q value=\"%s\"/>", id, name, escaped.String())
}

// FenceDevice is the stock fence agent of a node's BMC as a resource, for SeedCIB.
func (b *BMC) FenceDevice() string {
	id := "fence-" + b.node.Name
	var params strings.Builder
	for _, p := range [][2]string{
		{"pcmk_host_list", b.node.Name},
		{"ip", b.Address},
		{"username", b.User},
		{"password", b.Password},
		{"lanplus", "1"},
		{"cipher", strconv.Itoa(CipherSuite)},
	} {
		params.WriteString(NVPair(id+"-"+p[0], p[0], p[1]))
	}
	return fmt.Sprintf(`<primitive id=%[1]q class="stonith" type="fence_ipmilan">
<instance_attributes id="%[1]s-params">%[2]s</instance_attributes>
<operations><op id="%[1]s-monitor" name="monitor" interval="60s" timeout="30s"/></operations>
</primitive>
`, id, params.String())
}

// StartPacemaker makes every node of the lab a member and starts both daemons on those that are on. It may be
// called once per lab. It returns before the cluster is formed: see AwaitPacemaker.
func (l *Lab) StartPacemaker(ctx context.Context, p Pacemaker) error {
	if err := l.writeCorosync(p.Totem); err != nil {
		return err
	}
	var steps []func(context.Context) error
	for _, n := range l.nodes {
		if err := n.writePacemaker(p); err != nil {
			return fmt.Errorf("write Pacemaker files of %s: %w", n.Name, err)
		}
		if n.IsUp() {
			steps = append(steps, n.StartPacemaker)
		}
	}
	return together(ctx, steps...)
}

// writePacemaker makes the folders that belong to Pacemaker's own user, and the first CIB.
func (n *Node) writePacemaker(p Pacemaker) error {
	uid, gid, err := pacemakerUser()
	if err != nil {
		return err
	}
	cib := filepath.Join(pacemakerHome, "cib/cib.xml")
	for _, dir := range []string{pacemakerHome, pacemakerHome + "/cib", pacemakerHome + "/pengine", pacemakerHome + "/cores", pacemakerLog} {
		if err := errors.Join(os.MkdirAll(n.Path(dir), 0o750), os.Chown(n.Path(dir), uid, gid)); err != nil {
			return err
		}
	}
	err = errors.Join(
		os.MkdirAll(n.Path("/var/log/crmsh"), 0o755),
		writeFile(n.Path(cib), p.CIB, 0o600), os.Chown(n.Path(cib), uid, gid),
	)
	if !p.Manual {
		err = errors.Join(err, writeFile(n.Path(stackEnabled), "", 0o644))
	}
	return err
}

func pacemakerUser() (uid, gid int, err error) {
	u, err := user.Lookup("hacluster")
	if err != nil {
		return 0, 0, fmt.Errorf("find Pacemaker's user: %w", err)
	}
	g, err := user.LookupGroup("haclient")
	if err != nil {
		return 0, 0, fmt.Errorf("find Pacemaker's group: %w", err)
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		return 0, 0, fmt.Errorf("read Pacemaker's user: %w", err)
	}
	if gid, err = strconv.Atoi(g.Gid); err != nil {
		return 0, 0, fmt.Errorf("read Pacemaker's group: %w", err)
	}
	return uid, gid, nil
}

// runFolders makes what systemd-tmpfiles makes at boot.
func runFolders() error {
	uid, gid, err := pacemakerUser()
	if err != nil {
		return err
	}
	return errors.Join(
		os.MkdirAll("/run/resource-agents", 0o755),
		os.MkdirAll("/run/crm", 0o750), os.Chown("/run/crm", uid, gid),
	)
}

// StartPacemaker starts corosync and Pacemaker on a node that is on.
func (n *Node) StartPacemaker(ctx context.Context) error {
	return errors.Join(n.Start(ctx, Corosync), n.Start(ctx, Pacemakerd))
}

// StopPacemaker ends the cluster on every node that is on: all of Pacemaker first, in good order, and corosync only
// then. A node that left with its corosync would take quorum from those that still stop their resources.
func (l *Lab) StopPacemaker(ctx context.Context) error {
	if err := l.settle(ctx); err != nil {
		return err
	}
	for _, p := range []Program{Pacemakerd, Corosync} {
		var steps []func(context.Context) error
		for _, n := range l.nodes {
			if n.IsUp() {
				steps = append(steps, func(ctx context.Context) error { return n.Stop(ctx, p) })
			}
		}
		if err := together(ctx, steps...); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until Pacemaker has nothing more to do. A node that leaves while the DC waits for its probes keeps the
// DC from stopping until they time out.
func (l *Lab) settle(ctx context.Context) error {
	for _, n := range l.nodes {
		if n.IsUp() && !n.isPaused() {
			_, err := n.Exec(ctx, "crm_resource", "--wait", "--timeout", "30s")
			return err
		}
	}
	return nil
}

// AwaitPacemaker waits until every node that is on is online in a quorate cluster with a DC.
func (l *Lab) AwaitPacemaker(ctx context.Context, bound time.Duration) error {
	return l.AwaitCRM(ctx, bound, "every node online in Pacemaker", func(v CRMView) error {
		for _, n := range l.nodes {
			if n.IsUp() && !v.IsOnline(n.Name) {
				return fmt.Errorf("%s is not online", n.Name)
			}
		}
		return nil
	})
}

// SignalProgram sends a signal to every process of a program on the node: SIGKILL, or SIGSTOP and SIGCONT, to
// corosync or to one of Pacemaker's own ("pacemaker-controld").
func (n *Node) SignalProgram(program string, sig syscall.Signal) error {
	n.lab.Logf("%s: signal %v to %s", n.Name, sig, program)
	comm := program[:min(len(program), 15)] // the kernel keeps that much of a name
	found := 0
	for _, pid := range groupProcesses(n.group()) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil || strings.TrimSpace(string(text)) != comm {
			continue
		}
		if err := syscall.Kill(pid, sig); err != nil {
			return fmt.Errorf("signal %s on %s: %w", program, n.Name, err)
		}
		found++
	}
	if found == 0 {
		return fmt.Errorf("signal %s on %s: it does not run", program, n.Name)
	}
	return nil
}
