package selftest

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	lab.Register(lab.Case{Name: "lab/bmc-power", Nodes: 2, NoCeph: true, Run: bmcPower})
	lab.Register(lab.Case{Name: "lab/bmc-faults", Nodes: 2, NoCeph: true, Run: bmcFaults})
}

// ipmi runs ipmitool against a BMC, from the room.
func ipmi(ctx context.Context, b *lab.BMC, args ...string) (string, error) {
	argv := append([]string{"-I", "lanplus", "-C", fmt.Sprint(lab.CipherSuite), "-N", "1", "-R", "1", "-H", b.Address, "-U", b.User, "-P", b.Password}, args...)
	out, err := exec.CommandContext(ctx, "ipmitool", argv...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("ipmitool %v: %w: %s", args, err, out)
	}
	return string(out), nil
}

// reads is an error if the BMC reads another power state.
func reads(ctx context.Context, b *lab.BMC, want string) error {
	out, err := ipmi(ctx, b, "power", "status")
	if err == nil && !strings.Contains(out, "is "+want) {
		err = fmt.Errorf("expected power %s, got %q", want, out)
	}
	return err
}

// bmcPower has the BMC cut its node and boot it.
func bmcPower(ctx context.Context, t *lab.T) error {
	n := t.Node(2)
	if err := reads(ctx, n.BMC(), "on"); err != nil {
		return err
	}
	if _, err := ipmi(ctx, n.BMC(), "power", "off"); err != nil {
		return err
	}
	if err := errors.Join(t.Expect(!n.IsUp() && n.InitPID() == 0, "n2 to be gone when off was answered"), reads(ctx, n.BMC(), "off")); err != nil {
		return err
	}
	if _, err := ipmi(ctx, n.BMC(), "power", "on"); err != nil {
		return err
	}
	up := func() bool { return reach(ctx, t.Node(1), n.Address(0)) }
	if err := errors.Join(reads(ctx, n.BMC(), "on"), t.Await(ctx, 5*time.Second, "n2 to boot", up)); err != nil {
		return err
	}
	return bmcReset(ctx, t, n)
}

func bmcReset(ctx context.Context, t *lab.T, n *lab.Node) error {
	before := n.InitPID()
	if _, err := ipmi(ctx, n.BMC(), "power", "reset"); err != nil {
		return err
	}
	again := func() bool { pid := n.InitPID(); return pid != 0 && pid != before }
	if err := t.Await(ctx, 5*time.Second, "n2's next life", again); err != nil {
		return err
	}
	guid, err := ipmi(ctx, n.BMC(), "mc", "guid")
	t.Logf("guid of %s: %s", n.Name, guid)
	return err
}

// bmcFaults breaks one BMC in each way and heals it.
func bmcFaults(ctx context.Context, t *lab.T) error {
	one, two := t.Node(1).BMC(), t.Node(2).BMC()
	one.Dead()
	_, deadErr := ipmi(ctx, one, "power", "status")
	if err := errors.Join(t.Expect(deadErr != nil, "a dead BMC to be silent"), one.Heal(ctx), reads(ctx, one, "on")); err != nil {
		return err
	}
	if err := one.WrongPassword(ctx); err != nil {
		return err
	}
	_, loginErr := ipmi(ctx, one, "power", "status")
	if err := errors.Join(t.Expect(loginErr != nil, "a login with the wrong password to fail"), one.Heal(ctx), reads(ctx, one, "on")); err != nil {
		return err
	}
	one.Slow(150 * time.Millisecond)
	began := time.Now()
	err := errors.Join(reads(ctx, one, "on"), t.Expect(time.Since(began) > 600*time.Millisecond, "a slow BMC to be slow"), one.Heal(ctx))
	if err != nil {
		return err
	}
	return bmcSwap(ctx, t, one, two)
}

// bmcSwap shows that with swapped addresses one node's BMC tells the other's power; users stay with the BMC.
func bmcSwap(ctx context.Context, t *lab.T, one, two *lab.BMC) error {
	if err := t.Node(1).PowerCut(ctx); err != nil {
		return err
	}
	one.Swap(two)
	crossed := *one
	crossed.Password = two.Password
	_, err := ipmi(ctx, one, "power", "status")
	return errors.Join(
		t.Expect(err != nil, "the other BMC to refuse this one's password"),
		reads(ctx, &crossed, "on"),
		one.Heal(ctx), two.Heal(ctx),
		reads(ctx, one, "off"), reads(ctx, two, "on"),
	)
}
