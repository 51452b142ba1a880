// Package pacemaker reads what Pacemaker shows of its cluster, and tells it what keepone has to say: node attributes,
// promotion scores, and an operator's wishes. The parser is pure; whatever asks Pacemaker is bounded.
package pacemaker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/keepone-ha/keepone/pkg/drive"
)

// Errors that a caller may tell apart.
var (
	ErrNotRunning = errors.New("no Pacemaker answers on this node: `systemctl status pacemaker`, `systemctl start pacemaker`")
	ErrUnknown    = errors.New("no such node or resource in Pacemaker: `crm_mon -1` names them, `keepone pacemaker setup --check` says what is missing")
	ErrAlready    = errors.New("it is there already")
	ErrNoQuorum   = errors.New("no quorum in Pacemaker: `corosync-quorumtool -s` shows the votes")
)

const (
	// attributeBound is for pacemaker-attrd of this node, which answers in 30 ms without waiting for anybody.
	attributeBound = 3 * time.Second
	// askBound is for a change of the CIB, or crm_mon: 50 ms on a quiet machine, but they wait for an election of the DC,
	// which takes seconds.
	askBound = 20 * time.Second
)

// ReadStatus asks what Pacemaker shows, fencing that went well included.
func ReadStatus(ctx context.Context) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	out, err := drive.Answer(ctx, "crm_mon", "-1", "--output-as=xml", "--fence-history=2")
	if err == nil {
		return Parse(out)
	}
	if _, said := Parse(out); said != nil && errors.Is(said, ErrNotRunning) {
		return Status{}, said
	}
	return Status{}, fmt.Errorf("read Pacemaker's status: %w", explain(err))
}

// ReadCIB asks for the CIB as it is now, in XML.
func ReadCIB(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	out, err := drive.Answer(ctx, "cibadmin", "--query")
	if err != nil {
		return nil, fmt.Errorf("read the CIB: %w", explain(err))
	}
	return out, nil
}

// SetAttribute sets a transient attribute of this node: it is gone when the node leaves the cluster.
func SetAttribute(ctx context.Context, name, value string) error {
	return run(ctx, attributeBound, "set node attribute "+name, "attrd_updater", "--name", name, "--update", value)
}

// DeleteAttribute takes a transient attribute of this node away. It is no error if there is none.
func DeleteAttribute(ctx context.Context, name string) error {
	return run(ctx, attributeBound, "delete node attribute "+name, "attrd_updater", "--name", name, "--delete")
}

// Role is a resource, or of a promotable one its promoted role alone.
type Role struct {
	Resource string
	Promoted bool
}

func (r Role) args() []string {
	args := []string{"--resource", r.Resource}
	if r.Promoted {
		args = append(args, "--promoted")
	}
	return args
}

// Move asks for the resource to run on a node. The constraint that says so ends after so long; 0: with Clear.
func Move(ctx context.Context, r Role, node string, ends time.Duration) error {
	argv := append([]string{"crm_resource", "--move", "--node", node}, r.args()...)
	return run(ctx, askBound, fmt.Sprintf("move %s to %s", r.Resource, node), append(argv, lifetime(ends)...)...)
}

// Clear takes away what Move left. It is no error if they left nothing.
func Clear(ctx context.Context, r Role) error {
	return run(ctx, askBound, "clear constraints of "+r.Resource, append([]string{"crm_resource", "--clear"}, r.args()...)...)
}

// lifetime is a duration as ISO 8601 has it, rounded up to seconds.
func lifetime(d time.Duration) []string {
	if d <= 0 {
		return nil
	}
	return []string{"--lifetime", "PT" + strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10) + "S"}
}

// Standby makes a node host nothing, or host again. It outlives a reboot.
func Standby(ctx context.Context, node string, on bool) error {
	value := map[bool]string{true: "on", false: "off"}[on]
	return run(ctx, askBound, fmt.Sprintf("set standby of %s %s", node, value),
		"crm_attribute", "--node", node, "--name", "standby", "--update", value, "--lifetime", "forever")
}

// MaintenanceMode makes Pacemaker keep its hands off all resources, or take them again.
func MaintenanceMode(ctx context.Context, on bool) error {
	return run(ctx, askBound, "set maintenance-mode", "crm_attribute", "--name", "maintenance-mode", "--update", strconv.FormatBool(on))
}

// Stop has a resource stopped until Start.
func Stop(ctx context.Context, resource string) error {
	return run(ctx, askBound, "set target-role of "+resource,
		"crm_resource", "--resource", resource, "--meta", "--set-parameter", "target-role", "--parameter-value", "Stopped")
}

// Start takes back what Stop said: Pacemaker runs the resource where and as it may.
func Start(ctx context.Context, resource string) error {
	return run(ctx, askBound, "delete target-role of "+resource,
		"crm_resource", "--resource", resource, "--meta", "--delete-parameter", "target-role")
}

// run runs a verb in its bound. What it did before its bound ended is not known.
func run(ctx context.Context, bound time.Duration, what string, argv ...string) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	if _, err := drive.Run(ctx, argv...); err != nil {
		return fmt.Errorf("%s: %w", what, explain(err))
	}
	return nil
}

// explain adds to a tool's failure what its exit code means (crm_error -X -l).
func explain(err error) error {
	var fail *drive.Error
	if !errors.As(err, &fail) {
		return err
	}
	meaning := map[int]error{notConnected: ErrNotRunning, 105: ErrUnknown, 106: ErrNoQuorum, 108: ErrAlready}[fail.Code]
	if meaning == nil {
		return err
	}
	return fmt.Errorf("%w (%w)", meaning, err)
}
