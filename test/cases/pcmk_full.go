package cases

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	for _, style := range []string{styleOne, stylePromotable} {
		addManaged("volume-full-"+style, managedKind{style: style, cib: oneFailure}, managedVolumeFull)
	}
}

// oneFailure has one failed start send the service on, and keeps it in mind for longer than a case lasts.
func oneFailure(cib string) string {
	return strings.ReplaceAll(cib, `name="migration-threshold" value="3"`, `name="migration-threshold" value="1"`)
}

// managedVolumeFull: the container needs room to start, and its volume has none. Each node tries once, but for the one
// where it ended, then nobody does, and Pacemaker, keepone's status and its history say why. With room again the service is back, and nothing is lost.
func managedVolumeFull(ctx context.Context, m *managed) error {
	before, err := m.stand(ctx)
	if err != nil {
		return err
	}
	client, written, err := m.writing(ctx)
	if err != nil {
		return err
	}
	defer client.Stop()
	const more = "lxc.mount.entry = tmpfs needed tmpfs defaults,create=dir 0 0"
	script := fmt.Sprintf("echo '%s' >>/var/lib/keepone/volumes/%s/config", more, service)
	if err := m.crm(ctx, before.node, "sh", "-c", script); err != nil {
		return err
	}
	// Of bytes there are always some left for a directory; of inodes there are not.
	const fill = "mkdir /root/fill; i=0; while : >/root/fill/$i; do i=$((i+1)); done"
	if err := m.inside(ctx, before.node, "/bin/sh", "-c", fill); err == nil {
		return errors.New("the volume took without end")
	}
	if err := m.crm(ctx, before.node, "kill", "-9", fmt.Sprint(before.init)); err != nil {
		return err
	}
	if err := m.saysFull(ctx, before.node); err != nil {
		return err
	}
	top := m.resources()[len(m.resources())-1]
	if err := errors.Join(m.makeRoom(ctx), m.pcs(ctx, "resource", "cleanup"), m.pcs(ctx, "resource", "enable", m.resource(), top)); err != nil {
		return err
	}
	if err := errors.Join(m.awaitManaged(ctx, managedBound), written()); err != nil {
		return err
	}
	_, err = m.stand(ctx)
	return errors.Join(err, m.nothingShot())
}

// saysFull waits until every node but one has failed, and sees that it ends there.
func (m *managed) saysFull(ctx context.Context, but *lab.Node) error {
	const words = "the volume is full"
	count := func() (failures int, nodes map[string]bool, err error) {
		events, err := m.history(ctx, m.anyUp())
		nodes = map[string]bool{}
		for _, e := range events {
			if e.Kind == "failed" && strings.Contains(e.Reason, words) {
				nodes[e.Node] = true
				failures++
			}
		}
		return failures, nodes, err
	}
	if err := await(ctx, managedBound, "a start that failed on every node", func() error {
		_, nodes, err := count()
		for _, n := range m.Nodes() {
			if err == nil && n != but && !nodes[n.Name] {
				err = fmt.Errorf("only on %v", nodes)
			}
		}
		return err
	}); err != nil {
		return err
	}
	if err := errors.Join(m.says(ctx, words, "crm_mon", "-1"), m.shows(ctx, words), pass(ctx, 5*time.Second)); err != nil {
		return err
	}
	failures, nodes, err := count()
	if most := 2 * len(m.Nodes()); err == nil && failures > most {
		err = fmt.Errorf("%d failed starts on %v: expected %d at most", failures, nodes, most)
	}
	return err
}

// makeRoom is an operator's way to a volume whose container can't start: the container stays disabled, and the volume is
// brought up below it.
func (m *managed) makeRoom(ctx context.Context) error {
	if m.style == styleOne {
		return errors.Join(m.pcs(ctx, "resource", "disable", m.resource(), "--wait=30"), m.byHand(ctx, m.anyUp()))
	}
	if err := errors.Join(m.pcs(ctx, "resource", "disable", m.resource()), m.pcs(ctx, "resource", "cleanup")); err != nil {
		return err
	}
	return await(ctx, managedBound, "room in the volume", func() error {
		var errs []error
		for _, n := range m.Nodes() {
			_, err := n.Exec(ctx, "rm", "-r", "/var/lib/keepone/volumes/"+service+"/rootfs/root/fill")
			if err == nil {
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// byHand has the agent of the volume bring it up without Pacemaker.
func (m *managed) byHand(ctx context.Context, n *lab.Node) error {
	const script = `set -e
export OCF_ROOT=/usr/lib/ocf OCF_RESOURCE_INSTANCE=by-hand OCF_RESKEY_service=one OCF_RESKEY_CRM_meta_timeout=30000
rbd=/usr/lib/ocf/resource.d/keepone/rbd
$rbd start && $rbd promote
mount /run/keepone/dev/one /var/lib/keepone/volumes/one
rm -r /var/lib/keepone/volumes/one/rootfs/root/fill
umount /var/lib/keepone/volumes/one
$rbd demote && $rbd stop`
	return m.crm(ctx, n, "sh", "-c", script)
}
