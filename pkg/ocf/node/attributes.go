package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/clock"
)

// Attributes are this node's transient attributes in Pacemaker: they end when the node leaves the cluster.
type Attributes interface {
	Set(ctx context.Context, name, value string) error
	Delete(ctx context.Context, name string) error
}

// Promotion is the attribute that holds the promotion score of a promotable resource. The name is what
// crm_attribute --promotion makes of a resource's name: in Pacemaker 1 to 3 it is still the old word.
func Promotion(resource string) string { return "master-" + resource }

// updater is Pacemaker's attrd_updater. It forks, so it is called on a change alone.
type updater struct{}

// updateLimit: it takes 30 ms; without a running attrd it gives up by itself.
const updateLimit = 5 * time.Second

func (u updater) Set(ctx context.Context, name, value string) error {
	return u.run(ctx, "-n", name, "-U", value)
}

func (u updater) Delete(ctx context.Context, name string) error {
	return u.run(ctx, "-n", name, "-D")
}

func (updater) run(ctx context.Context, args ...string) error {
	const program = "attrd_updater"
	ctx, cancel := clock.WithTimeout(ctx, updateLimit)
	defer cancel()
	path, err := exec.LookPath(program)
	if errors.Is(err, exec.ErrNotFound) {
		path = "/usr/sbin/" + program // a path without sbin
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w: %s", program, err, firstLine(said.String()))
	}
	return nil
}

func firstLine(text string) string {
	const most = 200
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line[:min(len(line), most)]
}

// Score is a promotion score as it was last set; NoScore if it was taken away.
type Score int

// NoScore keeps Pacemaker from promoting: an absent score is less than any that is there.
const NoScore Score = -1

// SetScore sets or takes away the promotion score of a resource.
func (n Node) SetScore(ctx context.Context, resource string, score Score) error {
	if score == NoScore {
		return n.Attributes.Delete(ctx, Promotion(resource))
	}
	return n.Attributes.Set(ctx, Promotion(resource), strconv.Itoa(int(score)))
}
