package cases

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	addVM("form", 3, formed)
	addVM("power-cut", 3, func(ctx context.Context, c *cluster) error {
		return c.expectKernelTakeover(ctx, "bmc-off", powerCut)
	})
}

// formed looks at what the package and the kernel made of the README's words.
func formed(ctx context.Context, c *cluster) error {
	holder, _, err := c.holder(ctx, c.Node(1))
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range c.Nodes() {
		errs = append(errs, unitsWell(ctx, n))
		text, err := mapping(ctx, n)
		mapped := strings.Contains(text, " one ")
		if err != nil || mapped != (n == holder) {
			errs = append(errs, fmt.Errorf("%s is mapped: %t (%q, %w), the holder is %s", n.Name, mapped, text, err, holder.Name))
		}
		if n == holder && !(strings.Contains(text, "exclusive") && strings.Contains(text, "noshare")) {
			errs = append(errs, fmt.Errorf("the mapping is not exclusive and noshare: %q", text))
		}
	}
	if _, err := c.keepone(ctx, holder, "doctor"); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// unitsWell is an error unless systemd runs guard and daemon as the units say.
func unitsWell(ctx context.Context, n *lab.Node) error {
	out, err := sh(ctx, n, `systemctl show -P ActiveState keepone-guard keeponed keepone-shutdown | tr -s '\n' ' '
		cat /proc/$(systemctl show -P MainPID keepone-guard)/oom_score_adj
		chrt -p $(systemctl show -P MainPID keepone-guard)`)
	if err != nil {
		return err
	}
	for _, want := range []string{"active active active", "-1000", "SCHED_RR"} {
		if !strings.Contains(out, want) {
			return fmt.Errorf("units of %s: %q lacks %q", n.Name, out, want)
		}
	}
	return nil
}

// expectKernelTakeover loses the holder and expects the front-end elsewhere, mapped by the kernel, nothing lost.
func (c *cluster) expectKernelTakeover(ctx context.Context, proof string, bad func(context.Context, *lab.Node) error) error {
	t, err := c.failOver(ctx, vmTakeover, bad)
	if err != nil {
		return err
	}
	c.Logf("%s → %s in %.2f s, %s, event %+v", t.From.Name, t.To.Name, t.took().Seconds(), t.Verdict, t.Event)
	text, err := mapping(ctx, t.To)
	if err == nil && !strings.Contains(text, " one ") {
		err = fmt.Errorf("%w: %q", errNotMapped, text)
	}
	return errors.Join(err, nothingLost(t.Verdict), named(t, proof))
}

// named is an error unless the failover's event names both nodes and the proof.
func named(t takeover, proof string) error {
	e := t.Event
	if e.From != t.From.Name || e.To != t.To.Name || (proof != "" && e.Proof != proof) {
		return fmt.Errorf("event says %s → %s by %q, expected %s → %s by %q", e.From, e.To, e.Proof, t.From.Name, t.To.Name, proof)
	}
	return nil
}
