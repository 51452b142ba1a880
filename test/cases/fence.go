package cases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	add("fence/ready", kind{edit: fenceableOnly}, fenceReady)
	add("fence/what-if", kind{}, whatIfHolds)
}

// fenceableOnly has the BMC alone as proof, and asks for candidates that can be fenced.
func fenceableOnly(c *cluster) {
	c.document += "\n[fencing]\nproofs = [\"bmc-off\"]\nfenceable_only = true\n"
}

var fenceCheck = []string{"fence", "check", "-o", "json"}

// foreseen is what of an answer to `keepone what-if` counts here.
type foreseen struct {
	Services []struct {
		To     string             `json:"to"`
		Proof  string             `json:"proof"`
		Phases map[string]float64 `json:"phases"`
	} `json:"services"`
}

// whatIf asks what would become of the service if a node were lost.
func (c *cluster) whatIf(ctx context.Context, ask, lose *lab.Node, args ...string) (to, proof string, total float64, err error) {
	out, err := c.keepone(ctx, ask, append([]string{"what-if", "--lose", lose.Name, "-o", "json"}, args...)...)
	if err != nil {
		return "", "", 0, err
	}
	var f foreseen
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&f); err != nil || len(f.Services) != 1 {
		return "", "", 0, fmt.Errorf("read what-if: %w: %s", err, out)
	}
	s := f.Services[0]
	return s.To, s.Proof, s.Phases["total"], nil
}

// fenceReady breaks the BMC of the node that would take over: check and status say that it can't be fenced, the policy
// makes it no candidate, and the holder's loss is taken over by the third node.
func fenceReady(ctx context.Context, c *cluster) error {
	if err := c.awaitSettled(ctx); err != nil {
		return err
	}
	holder, _, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	if _, err := c.keepone(ctx, holder, fenceCheck...); err != nil {
		return err
	}
	name, _, _, err := c.whatIf(ctx, holder, holder)
	if err != nil {
		return err
	}
	heir := c.named(name)
	if heir == nil {
		return fmt.Errorf("what-if names no heir: %q", name)
	}
	if err := heir.BMC().WrongPassword(ctx); err != nil {
		return err
	}
	out, err := c.keepone(ctx, holder, fenceCheck...)
	if err == nil {
		return errors.New("fence check ended well with a BMC that refuses the password")
	}
	if err := contains("fence check", out, []string{`"canBeFenced": false`, "login refused: check the BMC's user and password"}); err != nil {
		return err
	}
	if err := c.awaitSaid(ctx, saidBound, holder, look, "it can't be fenced for "+service, "it is no candidate for "+service); err != nil {
		return err
	}
	other, _, _, err := c.whatIf(ctx, holder, holder)
	if err != nil {
		return err
	}
	if other == heir.Name || other == holder.Name {
		return fmt.Errorf("what-if still names %s", other)
	}
	t, err := c.failOver(ctx, takeoverBound, powerCut)
	if err != nil {
		return err
	}
	if t.To.Name != other {
		return fmt.Errorf("%s took over, not %s", t.To.Name, other)
	}
	return errors.Join(nothingLost(t.Verdict), explained(t, "bmc-off"))
}

// whatIfHolds asks what would be done if the holder and its BMC were lost, sees that the asking changes nothing, and
// then has just that happen: proof and place as foreseen, and the time about so.
func whatIfHolds(ctx context.Context, c *cluster) error {
	const off = 4 // seconds: foreseen at default timing, on a machine that may be busy
	if err := c.awaitSettled(ctx); err != nil {
		return err
	}
	holder, _, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	before, err := c.keepone(ctx, holder, past...)
	if err != nil {
		return err
	}
	to, proof, total, err := c.whatIf(ctx, holder, holder, "--bmc-dead", "--service", service)
	if err != nil {
		return err
	}
	after, err := c.keepone(ctx, holder, past...)
	if err != nil {
		return err
	}
	if before != after {
		return fmt.Errorf("asking left something in the history: %s", after)
	}
	t, err := c.failOver(ctx, takeoverBound, func(ctx context.Context, n *lab.Node) error {
		n.BMC().Dead()
		return n.PowerCut(ctx)
	})
	if err != nil {
		return err
	}
	c.Logf("foreseen: %s by %s in %.2f s; it was %s by %s in %.2f s", to, proof, total, t.To.Name, t.Event.Proof, t.Event.Phases["total"])
	if t.To.Name != to || t.Event.Proof != proof {
		return fmt.Errorf("foreseen was %s by %s, it became %s by %s", to, proof, t.To.Name, t.Event.Proof)
	}
	if took := t.Event.Phases["total"]; took < total-off || took > total+off {
		return fmt.Errorf("foreseen were %.2f s, it took %.2f s", total, took)
	}
	out, err := c.keepone(ctx, t.To, "fence", "list")
	if err != nil {
		return err
	}
	return contains("fence list", out, []string{holder.Name, "confirmed", "storage"})
}
