package cases

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

// managed is a cluster whose service Pacemaker orders and runs, and keepone grants and fences.
type managed struct {
	*cluster
	style string
}

// The styles of `keepone pacemaker setup`.
const (
	styleOne        = "one"
	stylePromotable = "promotable"
)

// recommended are the totem settings that `keepone pacemaker setup` prints for the lab's timing.
const recommended = "token: 1000\ntoken_coefficient: 0\nconsensus: 1200"

// managedLimit bounds a case: two clusters form, and Pacemaker takes its time.
const managedLimit = 4 * time.Minute

// managedNeeds are needs and the agents.
var managedNeeds = slices.Concat(needs, []string{"ocf/rbd", "ocf/container", "ocf/controller", "fence_keepone"})

// managedKind says what a case's cluster is like.
type managedKind struct {
	style string
	nodes int
	totem string                  // "": as recommended
	more  string                  // resources beside keepone's
	cib   func(cib string) string // what the case has otherwise than the setup, nil: nothing
	edit  edit
}

// addManaged registers a case that gets a formed cluster under Pacemaker.
func addManaged(name string, k managedKind, run func(ctx context.Context, m *managed) error) {
	lab.Register(lab.Case{
		Name: "pcmk/" + name, Nodes: k.nodes, Limit: managedLimit, Needs: managedNeeds,
		Run: func(ctx context.Context, t *lab.T) error {
			m, err := formManaged(ctx, t.Lab, k)
			if err != nil {
				return err
			}
			end := m.watchTwins(ctx)
			return errors.Join(run(ctx, m), end())
		},
	})
}

// formManaged makes the cluster by the operator's commands alone: keepone's, then what `keepone pacemaker setup` says.
func formManaged(ctx context.Context, l *lab.Lab, k managedKind) (*managed, error) {
	c, err := foundManaged(ctx, l, k.edit)
	if err != nil {
		return nil, err
	}
	m := &managed{cluster: c, style: k.style}
	cib, err := m.setup(ctx, k)
	if err != nil {
		return nil, err
	}
	totem := k.totem
	if totem == "" {
		totem = recommended
	}
	// A node of the lab boots in milliseconds: one that joined again in the middle of a failover would disturb it.
	if err := l.StartPacemaker(ctx, lab.Pacemaker{Totem: totem, CIB: cib, Manual: true}); err != nil {
		return nil, err
	}
	if err := l.AwaitPacemaker(ctx, formLimit); err != nil {
		return nil, err
	}
	return m, m.awaitManaged(ctx, formLimit)
}

// foundManaged makes keepone's own cluster, with a volume and the agents installed: nothing orders the service yet.
func foundManaged(ctx context.Context, l *lab.Lab, change edit) (*cluster, error) {
	c, err := prepare(ctx, l, func(c *cluster) {
		c.document = strings.Replace(c.document, `manager = "keepone"`, `manager = "pacemaker"`, 1)
		if change != nil {
			change(c)
		}
	})
	if err != nil {
		return nil, err
	}
	if err := c.createVolume(ctx); err != nil {
		return nil, err
	}
	return c, c.installAgents()
}

// installAgents puts the agents where Pacemaker looks for them.
func (c *cluster) installAgents() error {
	for from, to := range map[string]string{
		"ocf/rbd":        "/usr/lib/ocf/resource.d/keepone/rbd",
		"ocf/container":  "/usr/lib/ocf/resource.d/keepone/container",
		"ocf/controller": "/usr/lib/ocf/resource.d/keepone/controller",
		"fence_keepone":  "/usr/sbin/fence_keepone",
	} {
		program, err := os.ReadFile(filepath.Join(c.BinDir, from))
		if err != nil {
			return fmt.Errorf("read agent: %w", err)
		}
		if err := c.Install(to, program); err != nil {
			return err
		}
	}
	return nil
}

// setup is the CIB that keepone prints, with what the lab needs besides.
func (m *managed) setup(ctx context.Context, k managedKind) (string, error) {
	cib, err := m.keepone(ctx, m.Node(1), "pacemaker", "setup", "--style", k.style, "--format", "xml")
	if err != nil {
		return "", err
	}
	const options, resources = `<cluster_property_set id="cib-bootstrap-options">`, "<resources>"
	if !strings.Contains(cib, options) || !strings.Contains(cib, resources) {
		return "", fmt.Errorf("the setup is no CIB: %s", cib)
	}
	// The first election waits for this long for nodes that never come.
	cib = strings.Replace(cib, options, options+lab.NVPair("lab-dc-deadtime", "dc-deadtime", "2s"), 1)
	cib = strings.Replace(cib, resources, resources+k.more, 1)
	if k.cib != nil {
		cib = k.cib(cib)
	}
	return cib, nil
}

// awaitManaged waits until the service answers, and Pacemaker and keepone agree where.
func (m *managed) awaitManaged(ctx context.Context, bound time.Duration) error {
	if err := m.awaitRunning(ctx, bound); err != nil {
		return err
	}
	return m.agree(ctx, bound)
}

// agree waits until Pacemaker shows the container where keepone's grant is.
func (m *managed) agree(ctx context.Context, bound time.Duration) error {
	return m.AwaitCRM(ctx, bound, "Pacemaker and keepone of one mind", func(v lab.CRMView) error {
		holder, _, err := m.holder(ctx, m.anyUp())
		if err != nil {
			return err
		}
		if at := v.Holder(m.resource()); at != holder.Name {
			return fmt.Errorf("keepone's grant is on %s, Pacemaker has %s on %q", holder.Name, m.resource(), at)
		}
		return nil
	})
}

// resource is the container's id in the setup.
func (m *managed) resource() string { return "container-" + service }
