package cases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

// stand is how a service stands, by what nobody can only say: the grant, the kernel's container, Ceph's own client.
type stand struct {
	node   *lab.Node
	epoch  uint64
	init   int    // the container's init, as its node counts
	client string // address and nonce of the one Ceph client that has the image's lock
}

func (s stand) String() string {
	return fmt.Sprintf("%s epoch %d init %d client %s", s.node.Name, s.epoch, s.init, s.client)
}

// stand looks at all of it, and is an error unless the image's one locker is on the holder (I1) and the image carries
// the grant's epoch (I2).
func (m *managed) stand(ctx context.Context, not ...*lab.Node) (stand, error) {
	var s stand
	err := await(ctx, 10*time.Second, "grant, container and Ceph client of one mind", func() error {
		var err error
		s, err = m.standNow(ctx, not...)
		return err
	})
	if err == nil {
		m.Logf("the service stands at %s", s)
	}
	return s, err
}

func (m *managed) standNow(ctx context.Context, not ...*lab.Node) (stand, error) {
	node, epoch, err := m.holder(ctx, m.anyUp(not...))
	if err != nil {
		return stand{}, err
	}
	s := stand{node: node, epoch: epoch}
	if s.init, err = containerInit(node); err != nil {
		return s, err
	}
	if at := m.twins(); !slices.Equal(at, []string{node.Name}) {
		return s, fmt.Errorf("the grant is with %s, processes of the service are on %v", node.Name, at)
	}
	if s.client, err = m.locker(ctx); err != nil {
		return s, err
	}
	if !strings.HasPrefix(s.client, node.Address(0)+":") {
		return s, fmt.Errorf("the image's lock is with %s, the grant with %s", s.client, node.Name)
	}
	text, err := m.RBD(ctx, "image-meta", "get", image, "keepone.epoch")
	if err != nil {
		return s, err
	}
	if carried, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64); err != nil || carried != epoch {
		return s, fmt.Errorf("the image carries epoch %q, the grant has %d", strings.TrimSpace(text), epoch)
	}
	return s, nil
}

// containerInit is the process that a node's record names, if it lives.
func containerInit(n *lab.Node) (int, error) {
	path, err := n.LivePath("/run/keepone/services/" + service + "/record.json")
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read record: %w", err)
	}
	var record struct {
		Init struct{ PID int }
	}
	if err := json.Unmarshal(text, &record); err != nil {
		return 0, fmt.Errorf("read record: %w", err)
	}
	pid := record.Init.PID
	if alive, err := n.LivePath(fmt.Sprintf("/proc/%d", pid)); err != nil || pid == 0 || !exists(alive) {
		return 0, fmt.Errorf("the container's init %d on %s is not alive", pid, n.Name)
	}
	return pid, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// locker is the address of the one client that has the image's lock; "" if nobody has.
func (c *cluster) locker(ctx context.Context) (string, error) {
	text, err := c.RBD(ctx, "lock", "ls", image, "--format", "json")
	if err != nil {
		return "", err
	}
	var lockers []struct {
		Address string `json:"address"`
	}
	if err := json.Unmarshal([]byte(text), &lockers); err != nil {
		return "", fmt.Errorf("read lockers: %w: %s", err, text)
	}
	if len(lockers) > 1 {
		return "", fmt.Errorf("the image has %d lockers: %s", len(lockers), text)
	}
	if len(lockers) == 0 {
		return "", nil
	}
	return lockers[0].Address, nil
}

// cutOff is an error unless Ceph takes nothing more from a client (I6).
func (m *managed) cutOff(ctx context.Context, client string) error {
	list, err := m.Ceph(ctx, "osd", "blocklist", "ls")
	if err == nil && !slices.Contains(strings.Fields(list), client) {
		err = fmt.Errorf("the old holder's client %s is not on the blocklist: %s", client, list)
	}
	return err
}

// movedOn is an error unless the service stands elsewhere under a newer grant (I2), by another client.
func movedOn(before, after stand) error {
	if after.node == before.node || after.epoch <= before.epoch || after.client == before.client {
		return fmt.Errorf("the service stood at %s and now at %s: expected another node, epoch and client", before, after)
	}
	return nil
}

// untouched is an error if anything of the service changed.
func untouched(before, after stand) error {
	if before != after {
		return fmt.Errorf("the service stood at %s and now at %s: expected no change", before, after)
	}
	return nil
}

// watchTwins asks the kernels of all nodes, until end, whether processes of the service are on two at once (I1). A node
// without power has none, whatever is still being cleared away of it.
func (m *managed) watchTwins(ctx context.Context) (end func() error) {
	ctx, stop := context.WithCancel(ctx)
	found := make(chan error, 1)
	go func() {
		var seen error
		for ctx.Err() == nil {
			if twins := m.twins(); len(twins) > 1 && seen == nil {
				seen = fmt.Errorf("processes of the service on %v at once", twins)
				m.Logf("%v", seen)
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
		found <- seen
	}()
	return func() error {
		stop()
		return <-found
	}
}

// twins are the nodes that have processes of the service, read forth and back: what is there both times was there when
// the last node was read.
func (m *managed) twins() []string {
	var forth, both []string
	for _, n := range m.Nodes() {
		if populated(n) {
			forth = append(forth, n.Name)
		}
	}
	if len(forth) < 2 {
		return forth
	}
	for _, n := range slices.Backward(m.Nodes()) {
		if slices.Contains(forth, n.Name) && populated(n) {
			both = append(both, n.Name)
		}
	}
	return both
}

func populated(n *lab.Node) bool {
	path, err := n.LivePath("/sys/fs/cgroup/keepone/" + service + "/run/cgroup.events")
	if err != nil || !n.IsUp() {
		return false
	}
	text, err := os.ReadFile(path)
	return err == nil && strings.Contains(string(text), "populated 1")
}

// loses has something bad done to the holder while a client writes, and expects what a failover under Pacemaker
// promises: the service elsewhere, by another Ceph client, the old one cut off, nothing lost, both authorities agreed.
func (m *managed) loses(ctx context.Context, bad func(context.Context, *lab.Node) error) (before, after stand, err error) {
	if before, err = m.stand(ctx); err != nil {
		return before, after, err
	}
	t, err := outage(ctx, m.Lab, m.address, managedBound, before.node, bad)
	if err != nil {
		return before, after, err
	}
	m.Logf("answers after %s", t.took())
	if err := errors.Join(nothingLost(t.Verdict), m.agree(ctx, managedBound)); err != nil {
		return before, after, err
	}
	after, err = m.stand(ctx)
	return before, after, errors.Join(err, movedOn(before, after), m.cutOff(ctx, before.client))
}

// moves has the service moved in good order while a client writes.
func (m *managed) moves(ctx context.Context, do func(context.Context, *lab.Node) error) (before, after stand, err error) {
	if before, err = m.stand(ctx); err != nil {
		return before, after, err
	}
	_, written, err := m.writing(ctx)
	if err != nil {
		return before, after, err
	}
	if err := do(ctx, before.node); err != nil {
		return before, after, err
	}
	if _, err := m.awaitHolder(ctx, managedBound, before.node); err != nil {
		return before, after, err
	}
	if err := errors.Join(m.agree(ctx, managedBound), written()); err != nil {
		return before, after, err
	}
	after, err = m.stand(ctx)
	return before, after, errors.Join(err, movedOn(before, after))
}

// rests does something while a client writes, and expects that for a while nothing of the service changes.
func (m *managed) rests(ctx context.Context, watch time.Duration, do func(context.Context, *lab.Node) error) error {
	before, err := m.stand(ctx)
	if err != nil {
		return err
	}
	client, written, err := m.writing(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := do(ctx, before.node); err != nil {
		client.Stop()
		return err
	}
	if err := pass(ctx, watch); err != nil {
		return err
	}
	if err := written(); err != nil {
		return err
	}
	m.Logf("longest gap %s", client.GapAround(began).Length())
	after, err := m.stand(ctx, before.node)
	return errors.Join(err, untouched(before, after))
}

// pass lets time pass: what must not happen is given the time to.
func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
