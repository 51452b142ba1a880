package guard

import (
	"context"
	"errors"

	"github.com/keepone-ha/keepone/pkg/boottime"
)

// beat is one tick: look at the world, contain, send a heartbeat to every node on each link, pet the watchdog.
func (g *Guard) beat(ctx context.Context, now boottime.Time) {
	g.reload()
	g.bind()
	g.scan(now)
	g.expire(ctx, now)
	g.leases.Forget(now, g.holds)
	g.sendHeartbeats(now)
	g.tend(now)
}

// bind opens the sockets of the links that have none.
func (g *Guard) bind() {
	if len(g.io.links) == len(g.conf.Links) {
		return
	}
	var fds []int
	for _, link := range g.conf.Links[len(g.io.links):] {
		fd, err := openSocket(link)
		if err == nil {
			err = g.watch(fd)
		}
		if err != nil {
			g.warn("link "+link.String(), err)
			break // in order: the index is the link
		}
		g.well("link " + link.String())
		fds = append(fds, fd)
	}
	g.io.links = append(g.io.links, fds...)
}

func (g *Guard) sendHeartbeats(now boottime.Time) {
	if g.conf.Cluster == "" {
		return
	}
	// A restarted guard goes on above where the last one was, since its clock does.
	g.seq = max(g.seq+1, uint64(now))
	h := Heartbeat{
		Cluster: g.conf.Cluster, Node: g.conf.Node, Instance: g.instance, Seq: g.seq, Sent: now,
		Flags: g.flags(now), Watchdog: g.armed(), Services: g.held(),
	}
	g.leases.Sent(h.Seq, h.Sent)
	for _, peer := range g.conf.Peers {
		datagram, err := AppendHeartbeat(g.io.buf[:0], h, &peer.Key)
		for errors.Is(err, ErrTooLong) && len(h.Services) > 0 {
			// What is not named gets no lease and is contained: better than no heartbeat at all.
			g.warn("heartbeat", err)
			h.Services = h.Services[:len(h.Services)-1]
			datagram, err = AppendHeartbeat(g.io.buf[:0], h, &peer.Key)
		}
		if err != nil {
			g.warn("heartbeat", err)
			return
		}
		for i := range min(len(g.io.links), len(peer.Links)) {
			what := "link " + g.conf.Links[i].String() + " to " + string(peer.Node)
			if err := send(g.io.links[i], datagram, peer.Links[i]); err != nil {
				g.warn(what, err)
			} else if len(g.io.warned) > 0 {
				g.well(what)
			}
		}
	}
}

func (g *Guard) flags(now boottime.Time) Flags {
	var f Flags
	if now.Sub(g.daemon) < daemonFresh {
		f |= DaemonHealthy
	}
	if g.leases.InMaintenance(now) {
		f |= MaintenanceAccepted
	}
	return f
}

// hear takes up the acks that wait.
func (g *Guard) hear(ctx context.Context) {
	for _, fd := range g.io.links {
		for range maxReceive {
			n, ok := receive(fd, g.io.buf)
			if !ok || ctx.Err() != nil {
				break
			}
			g.take1(g.io.buf[:n])
		}
	}
}

// take1 takes up one datagram. Whatever is wrong with it, it is dropped without a word: anybody may send one.
func (g *Guard) take1(datagram []byte) {
	sender, err := Sender(datagram)
	if err != nil {
		return
	}
	for i := range g.conf.Peers {
		if g.conf.Peers[i].Node != sender {
			continue
		}
		a, err := DecodeAck(datagram, &g.conf.Peers[i].Key)
		if err != nil || a.Cluster != g.conf.Cluster || a.Instance != g.instance {
			return
		}
		g.acked(a)
		return
	}
}

func (g *Guard) acked(a Ack) {
	now := g.o.Now()
	changed, err := g.leases.Ack(a)
	if err != nil {
		return
	}
	g.lastAck = lastAck{at: now, from: a.Node}
	if changed {
		g.save()
	}
}
