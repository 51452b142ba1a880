package cases

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	for _, style := range []string{styleOne, stylePromotable} {
		addManaged("front-end-dead-"+style, managedKind{style: style, cib: quickMonitors, edit: quickStop}, frontEndDead)
		addManaged("blocklisted-"+style, managedKind{style: style, cib: quickMonitors, edit: quickStop}, blocklisted)
		addManaged("failed-start-"+style, managedKind{style: style, cib: quickFailures}, failedStart)
		addManaged("raft-away-at-start-"+style, managedKind{style: style}, raftAwayAtStart)
		addManaged("lease-ended-"+style, managedKind{style: style, cib: quickMonitors}, leaseEnded)
	}
}

// quickMonitors has the monitors that look deeper than the kernel's word come every other second.
func quickMonitors(cib string) string {
	return strings.NewReplacer(
		`id="container-one-monitor-20" name="monitor" interval="30s"`, `id="container-one-monitor-20" name="monitor" interval="2s"`,
		`id="rbd-one-monitor-promoted" name="monitor" interval="10s"`, `id="rbd-one-monitor-promoted" name="monitor" interval="2s"`,
	).Replace(cib)
}

// quickStop is for a container that can't shut down any more.
func quickStop(c *cluster) {
	c.document = strings.Replace(c.document, `stop_limit = "10s"`, `stop_limit = "1s"`, 1)
}

// frontEndDead: the front-end hangs in a container that runs. Only its own answer shows that, and Pacemaker asks for it.
func frontEndDead(ctx context.Context, m *managed) error {
	return m.recovers(ctx, func(_ context.Context, s stand) error {
		return s.node.SignalProgram(lab.FrontendProgram, syscall.SIGSTOP)
	}, func(before, after stand) error {
		if after.init == before.init && after.node == before.node {
			return fmt.Errorf("the container is still the one whose front-end hangs: %s", after)
		}
		return nil
	})
}

// blocklisted: somebody cuts the volume's client off for an hour below a running container. That is too short for the next
// one to start safely; a keyring that may makes it last, and the service is back with another client by itself.
func blocklisted(ctx context.Context, m *managed) error {
	mend := `profile rbd, allow command "osd blocklist" with blocklistop=rm`
	if err := m.SetCaps(ctx, lab.CephUser, "mon", mend, "osd", "profile rbd"); err != nil {
		return err
	}
	return m.recovers(ctx, func(ctx context.Context, s stand) error {
		_, err := m.Ceph(ctx, "osd", "blocklist", "add", s.client)
		return err
	}, func(before, after stand) error {
		if after.client == before.client || after.epoch <= before.epoch {
			return fmt.Errorf("it stood at %s and now at %s: expected another client and epoch", before, after)
		}
		return nil
	})
}

// recovers does something bad that Pacemaker's monitor has to find, and expects the service back, anew, with nothing lost.
func (m *managed) recovers(ctx context.Context, bad func(context.Context, stand) error, anew func(before, after stand) error) error {
	before, err := m.stand(ctx)
	if err != nil {
		return err
	}
	client, written, err := m.writing(ctx)
	if err != nil {
		return err
	}
	defer client.Stop()
	began := time.Now()
	if err := bad(ctx, before); err != nil {
		return err
	}
	if err := await(ctx, managedBound, "the service anew", func() error {
		after, err := m.standNow(ctx)
		if err != nil {
			return err
		}
		return anew(before, after)
	}); err != nil {
		return err
	}
	m.Logf("anew after %s", time.Since(began))
	return errors.Join(m.awaitManaged(ctx, managedBound), written(), m.nothingShot())
}

// quickFailures has one failed start send the service on, and forgets it after a few seconds.
func quickFailures(cib string) string {
	return strings.NewReplacer(
		`name="migration-threshold" value="3"`, `name="migration-threshold" value="1"`,
		`name="failure-timeout" value="600s"`, `name="failure-timeout" value="3s"`,
		`name="cluster-recheck-interval" value="60s"`, `name="cluster-recheck-interval" value="2s"`,
	).Replace(cib)
}

// failedStart: the container's config on the volume wants something that no node has, so no start succeeds. Each node is
// tried. When all of them have it, the service is tried again by itself, once the failures have run out.
func failedStart(ctx context.Context, m *managed) error {
	const wanted = "/var/lib/keepone/wanted"
	before, err := m.stand(ctx)
	if err != nil {
		return err
	}
	client, written, err := m.writing(ctx)
	if err != nil {
		return err
	}
	defer client.Stop()
	more := "lxc.mount.entry = " + wanted + " mnt none bind,create=dir 0 0"
	script := fmt.Sprintf("echo '%s' >>/var/lib/keepone/volumes/%s/config && kill -9 %d", more, service, before.init)
	if err := m.crm(ctx, before.node, "sh", "-c", script); err != nil {
		return err
	}
	if err := await(ctx, managedBound, "a failed start on two nodes", func() error {
		events, err := m.history(ctx, m.anyUp())
		if err != nil {
			return err
		}
		failed := map[string]bool{}
		for _, e := range events {
			if e.Kind == "failed" && e.Service == service && strings.Contains(e.Reason, "wanted") {
				failed[e.Node] = true
			}
		}
		if len(failed) < 2 {
			return fmt.Errorf("only on %v", failed)
		}
		return nil
	}); err != nil {
		return err
	}
	for _, n := range m.Nodes() {
		if err := m.crm(ctx, n, "mkdir", wanted); err != nil {
			return err
		}
	}
	if err := errors.Join(m.awaitManaged(ctx, managedBound), written()); err != nil {
		return err
	}
	_, err = m.stand(ctx)
	return errors.Join(err, m.nothingShot())
}

// raftAwayAtStart: Pacemaker starts the service while no keeponed reaches another. The start waits, and succeeds when
// they do again.
func raftAwayAtStart(ctx context.Context, m *managed) error {
	before, err := m.stand(ctx)
	if err != nil {
		return err
	}
	top := m.resources()[len(m.resources())-1] // of the promotable style the group: its volume stays
	target := func(role string) error {
		return m.crm(ctx, m.Node(1), "crm_resource", "--resource", top, "--meta", "--set-parameter", "target-role", "--parameter-value", role)
	}
	if err := errors.Join(target("Stopped"), m.crm(ctx, m.Node(1), "crm_resource", "--wait", "--timeout", "30s")); err != nil {
		return err
	}
	if _, err := lab.AskVersion(ctx, m.address, session); err == nil {
		return errors.New("the front-end answers, though its resource is disabled")
	}
	var errs []error
	for _, n := range m.Nodes() {
		errs = append(errs, n.Silence(ctx, lab.RaftTalk))
	}
	if err := errors.Join(append(errs, target("Started"), pass(ctx, 7*time.Second))...); err != nil {
		return err
	}
	if at := m.inits(); len(at) > 0 {
		return fmt.Errorf("a container was started on %v without a leader", at)
	}
	for _, n := range m.Nodes() {
		errs = append(errs, n.Heal(ctx))
	}
	if err := errors.Join(append(errs, m.awaitManaged(ctx, managedBound))...); err != nil {
		return err
	}
	status, err := m.Node(1).Exec(ctx, "cibadmin", "--query", "--scope", "status")
	if err == nil && strings.Contains(status, `name="fail-count-`+m.resource()) {
		err = errors.New("the start failed before it succeeded")
	}
	after, standErr := m.stand(ctx)
	if after.node != nil && after.init == before.init {
		err = errors.Join(err, fmt.Errorf("it was never stopped: %s", after))
	}
	return errors.Join(err, standErr, m.nothingShot())
}

// leaseEnded: no keeponed and no guard hears another, and Pacemaker and corosync are well. The holder contains itself at the
// end of its lease, and the service is back once they hear each other again. The history says what it was.
func leaseEnded(ctx context.Context, m *managed) error {
	var held *lab.Node
	if err := m.recovers(ctx, func(ctx context.Context, s stand) error {
		held = s.node
		var errs []error
		for _, talk := range []lab.Talk{lab.RaftTalk, lab.GuardTalk} {
			for _, n := range m.Nodes() {
				errs = append(errs, n.Silence(ctx, talk))
			}
		}
		errs = append(errs, await(ctx, managedBound, "the holder contained", func() error {
			if at := m.inits(); len(at) > 0 {
				return fmt.Errorf("a container runs on %v", at)
			}
			return nil
		}))
		for _, n := range m.Nodes() {
			errs = append(errs, n.Heal(ctx))
		}
		return errors.Join(errs...)
	}, func(before, after stand) error {
		if after.init == before.init && after.node == before.node {
			return fmt.Errorf("it was never stopped: %s", after)
		}
		return nil
	}); err != nil {
		return err
	}
	e, err := m.lastEvent(ctx, m.anyUp(), "failed")
	if err == nil && (e.Node != held.Name || !strings.Contains(e.Reason, "its lease has ended")) {
		err = fmt.Errorf("the history says of %s: %q", e.Node, e.Reason)
	}
	return err
}

// inits are the nodes on which the service's container runs.
func (m *managed) inits() []string {
	var at []string
	for _, n := range m.Nodes() {
		if _, err := containerInit(n); err == nil {
			at = append(at, n.Name)
		}
	}
	return at
}
