package selftest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	lab.Register(lab.Case{Name: "lab/pacemaker", NoCeph: true, Limit: 90 * time.Second, Run: pacemaker})
}

const (
	// quickTotem finds a lost node after about 1.4 s: the case is about fencing, not about waiting.
	quickTotem  = "token: 600\ntoken_coefficient: 0"
	dummyAgent  = "/usr/lib/ocf/resource.d/lab/Dummy"
	dummyPrimer = "/usr/lib/ocf/resource.d/pacemaker/Dummy"
	dummy       = `<primitive id="dummy" class="ocf" provider="lab" type="Dummy">
<operations><op id="dummy-monitor" name="monitor" interval="10s" timeout="20s"/></operations>
</primitive>
`
)

// pacemaker forms a stock cluster with an agent that the lab installed, cuts the node that runs its resource, and
// finds it fenced by its BMC and the resource elsewhere; with its power the node is back.
func pacemaker(ctx context.Context, t *lab.T) error {
	if err := formPacemaker(ctx, t); err != nil {
		return err
	}
	lost, err := dummyHolder(ctx, t, nil)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := lost.PowerCut(ctx); err != nil {
		return err
	}
	holder, err := dummyHolder(ctx, t, lost)
	if err != nil {
		return err
	}
	t.Logf("%s cut, dummy on %s after %v", lost.Name, holder.Name, time.Since(began))
	fenced, err := holder.Exec(ctx, "stonith_admin", "--history", lost.Name)
	err = errors.Join(err,
		t.Expect(strings.Contains(fenced, "turning off of "+lost.Name+" successful"), "%s in the history of fences, got %q", lost.Name, fenced),
		t.Expect(!lost.IsUp(), "%s to stay off", lost.Name),
		lost.PowerOn(ctx), // its daemons start by themselves
	)
	if err != nil {
		return err
	}
	if err := t.AwaitPacemaker(ctx, 30*time.Second); err != nil {
		return err
	}
	return errors.Join(daemonReturns(ctx, t, holder), staysInNode(t), t.StopPacemaker(ctx), allEnded(ctx, t))
}

// formPacemaker starts the cluster and finds both rings in use.
func formPacemaker(ctx context.Context, t *lab.T) error {
	program, err := os.ReadFile(dummyPrimer)
	if err != nil {
		return fmt.Errorf("read agent: %w", err)
	}
	if err := t.Install(dummyAgent, program); err != nil {
		return err
	}
	resources := dummy
	for _, n := range t.Nodes() {
		resources += n.BMC().FenceDevice()
	}
	// A node of the lab boots faster than any machine: fenced by a reboot it would be back before the dummy moved.
	options := map[string]string{"dc-deadtime": "2s", "stonith-enabled": "true", "stonith-action": "off"}
	began := time.Now()
	err = t.StartPacemaker(ctx, lab.Pacemaker{Totem: quickTotem, CIB: lab.SeedCIB(options, resources, "")})
	if err := errors.Join(err, t.AwaitPacemaker(ctx, 30*time.Second)); err != nil {
		return err
	}
	t.Logf("Pacemaker formed after %v", time.Since(began))
	rings, err := t.Node(1).Exec(ctx, "corosync-cfgtool", "-s")
	return errors.Join(err, t.Expect(strings.Count(rings, "connected") == 4, "two rings to two peers, got %q", rings))
}

// dummyHolder waits until the resource runs on another node than not.
func dummyHolder(ctx context.Context, t *lab.T, not *lab.Node) (*lab.Node, error) {
	var holder *lab.Node
	err := t.AwaitCRM(ctx, 30*time.Second, "the dummy", func(v lab.CRMView) error {
		name := v.Holder("dummy")
		for _, n := range t.Nodes() {
			if n.Name == name && n != not {
				holder = n
				return nil
			}
		}
		return fmt.Errorf("it is on %q", name)
	})
	return holder, err
}

// daemonReturns kills one of Pacemaker's own daemons: its master starts it again.
func daemonReturns(ctx context.Context, t *lab.T, n *lab.Node) error {
	const daemon = "pacemaker-attrd"
	first, err := n.Exec(ctx, "pidof", daemon)
	if err != nil {
		return err
	}
	if err := n.SignalProgram(daemon, syscall.SIGKILL); err != nil {
		return err
	}
	// While it is away a controller that stops needs it, and takes its absence for fatal.
	back := func() bool {
		again, err := n.Exec(ctx, "pidof", daemon)
		if err != nil || again == first {
			return false
		}
		_, err = n.Exec(ctx, "attrd_updater", "--name", "selftest", "--update", "1")
		return err == nil
	}
	return t.Await(ctx, 10*time.Second, "the return of "+daemon, back)
}

// staysInNode shows that what was installed on nodes is nowhere else.
func staysInNode(t *lab.T) error {
	_, err := os.Stat(dummyAgent)
	return t.Expect(os.IsNotExist(err), "%s on the nodes alone, got %v", dummyAgent, err)
}

// allEnded finds no process of the stack on any node.
func allEnded(ctx context.Context, t *lab.T) error {
	var errs []error
	for _, n := range t.Nodes() {
		out, err := n.Exec(ctx, "ps", "-e", "-o", "comm=")
		left := strings.Contains(out, "corosync") || strings.Contains(out, "pacemaker")
		errs = append(errs, err, t.Expect(!left, "no daemon left on %s, got %q", n.Name, out))
	}
	return errors.Join(errs...)
}
