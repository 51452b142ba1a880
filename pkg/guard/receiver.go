package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
)

// Arrival is one verified heartbeat, each sequence number at most once for each link.
type Arrival struct {
	Link      int
	At        boottime.Time // this node's clock, read after the heartbeat was received
	Heartbeat Heartbeat
}

// ReceiverConf is what the daemon's end of the heartbeats needs.
type ReceiverConf struct {
	Cluster string
	Node    core.NodeName
	Links   []netip.AddrPort // own addresses, DaemonPort; one that is missing is used as soon as it is there
	Peers   []Peer           // every node, with the addresses of its guard
	Deliver func(Arrival)    // called by one goroutine for each link; must not block
	Log     *slog.Logger
}

// Receiver is the daemon's end of the heartbeats.
type Receiver struct {
	conf  ReceiverConf
	links []*os.File
	mu    sync.Mutex
	peers map[core.NodeName]Peer
	seen  map[seenKey]uint64 // highest sequence number: it must rise
}

type seenKey struct {
	node     core.NodeName
	instance core.Instance
	link     int
}

// maxSeen bounds the memory of lives. Only members can fill it, one life each; beyond it everything is forgotten, and
// a replay of a forgotten life is told by its instance, which is not the committed one.
const maxSeen = 4096

// ErrNoPeer says that a node is not known, or has no address on that link.
var ErrNoPeer = errors.New("no such peer on this link")

// NewReceiver opens the sockets. Run closes them.
func NewReceiver(conf ReceiverConf) (*Receiver, error) {
	r := &Receiver{conf: conf, seen: map[seenKey]uint64{}}
	r.SetPeers(conf.Peers)
	for _, link := range conf.Links {
		fd, err := openSocket(link)
		if err != nil {
			r.close()
			return nil, fmt.Errorf("receive heartbeats: %w", err)
		}
		r.links = append(r.links, os.NewFile(uintptr(fd), "udp "+link.String()))
	}
	return r, nil
}

// Run delivers until ctx ends, then closes the sockets and returns nil.
func (r *Receiver) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, r.close)
	defer stop()
	defer r.close()
	errs := make([]error, len(r.links))
	var work sync.WaitGroup
	for link, file := range r.links {
		work.Go(func() { errs[link] = r.listen(ctx, link, file) })
	}
	work.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("receive heartbeats: %w", err)
	}
	return nil
}

func (r *Receiver) close() {
	for _, file := range r.links {
		_ = file.Close()
	}
}

func (r *Receiver) listen(ctx context.Context, link int, file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, MaxDatagram+1)
	for ctx.Err() == nil {
		var n int
		err := raw.Read(func(fd uintptr) (done bool) {
			n, done = receive(int(fd), buf)
			return done
		})
		if errors.Is(err, os.ErrClosed) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if h, ok := r.open(link, buf[:n]); ok {
			r.conf.Deliver(Arrival{Link: link, At: boottime.Now(), Heartbeat: h})
		}
	}
	return nil
}

// open checks a datagram. Whatever is wrong with it, it is dropped: anybody may send one.
func (r *Receiver) open(link int, datagram []byte) (Heartbeat, bool) {
	sender, err := Sender(datagram)
	if err != nil {
		return Heartbeat{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	peer, known := r.peers[sender]
	if !known {
		return Heartbeat{}, false
	}
	h, err := DecodeHeartbeat(datagram, &peer.Key)
	if err != nil || h.Cluster != r.conf.Cluster {
		return Heartbeat{}, false
	}
	key := seenKey{h.Node, h.Instance, link}
	if h.Seq <= r.seen[key] {
		return Heartbeat{}, false
	}
	if len(r.seen) >= maxSeen {
		clear(r.seen)
	}
	r.seen[key] = h.Seq
	return h, true
}

// SetPeers replaces the peers, after a change of membership.
func (r *Receiver) SetPeers(peers []Peer) {
	m := make(map[core.NodeName]Peer, len(peers))
	for _, p := range peers {
		m[p.Node] = p
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.peers = m
}

// SendAck sends a to node's guard on one link, or on all of them with link < 0. It never blocks; an error says
// that no link took it. Cluster and Node are filled in.
func (r *Receiver) SendAck(link int, node core.NodeName, a Ack) error {
	r.mu.Lock()
	peer, known := r.peers[node]
	r.mu.Unlock()
	if !known {
		return fmt.Errorf("ack heartbeat of %s: %w", node, ErrNoPeer)
	}
	a.Cluster, a.Node = r.conf.Cluster, r.conf.Node
	datagram, err := AppendAck(make([]byte, 0, MaxDatagram), a, &peer.Key)
	if err != nil {
		return fmt.Errorf("ack heartbeat of %s: %w", node, err)
	}
	failed := []error{ErrNoPeer}
	for i := range min(len(r.links), len(peer.Links)) {
		if link >= 0 && i != link {
			continue
		}
		err := r.sendOn(i, datagram, peer.Links[i])
		if err == nil {
			return r.sendRest(link, i+1, datagram, peer)
		}
		failed = append(failed, err)
	}
	return fmt.Errorf("ack heartbeat of %s: %w", node, errors.Join(failed...))
}

// sendRest goes on with the other links after one took the ack; whether they do makes no difference.
func (r *Receiver) sendRest(link, from int, datagram []byte, peer Peer) error {
	for i := from; link < 0 && i < min(len(r.links), len(peer.Links)); i++ {
		_ = r.sendOn(i, datagram, peer.Links[i])
	}
	return nil
}

func (r *Receiver) sendOn(link int, datagram []byte, to netip.AddrPort) error {
	raw, err := r.links[link].SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = send(int(fd), datagram, to) }); err != nil {
		return fmt.Errorf("send to %s: %w", to, err)
	}
	return sent
}
