package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// CipherSuite is the one to name for every BMC of the lab: detecting it takes 10 s and more.
const CipherSuite = 3

// BMC is a node's management controller: a real one (ipmi_sim) behind a relay on the BMC's address, where the lab
// loses, delays or turns away datagrams. It lives on while its node is off.
type BMC struct {
	Address  string // UDP port 623 in the room's network, on link 1
	User     string
	Password string
	GUID     string // 32 hex digits

	node  *Node
	relay *relay
	sim   *exec.Cmd
	done  chan struct{}
	dir   string
}

// BMC returns the node's management controller.
func (n *Node) BMC() *BMC { return n.lab.bmcs[n.Index-1] }

func newBMC(n *Node) *BMC {
	return &BMC{
		Address: fmt.Sprintf("10.78.0.%d", 100+n.Index), User: "admin", Password: fmt.Sprintf("secret%d", n.Index),
		GUID: fmt.Sprintf("a123456789abcdefa123456789abcd%02d", n.Index),
		node: n, dir: filepath.Join(n.lab.Work, "bmc", n.Name),
	}
}

func (l *Lab) startBMCs(ctx context.Context) error {
	var steps []func(context.Context) error
	for _, n := range l.nodes {
		b := newBMC(n)
		l.bmcs = append(l.bmcs, b)
		steps = append(steps, b.open)
	}
	return together(ctx, steps...)
}

func (b *BMC) open(ctx context.Context) error {
	relay, err := newRelay(b.Address+":623", b.simAddress())
	if err != nil {
		return err
	}
	b.relay = relay
	return b.startSim(ctx, b.Password)
}

func (b *BMC) close() error {
	if b.relay != nil {
		b.relay.close()
	}
	return b.stopSim()
}

func (b *BMC) simAddress() string { return fmt.Sprintf("127.0.0.1:%d", 16230+b.node.Index) }

const lanConfig = `name %[1]q
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 %[2]d
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid %[3]s
  endlan
  chassis_control %[4]q
  user 2 true "admin" %[5]q admin 10
  user 3 true "oper" "operpw" operator 10
`

const emulatorConfig = `mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
`

// startSim runs ipmi_sim with a fresh state folder: it would keep an old password there.
func (b *BMC) startSim(ctx context.Context, password string) error {
	state := filepath.Join(b.dir, "state")
	if err := errors.Join(os.RemoveAll(state), os.MkdirAll(state, 0o700)); err != nil {
		return fmt.Errorf("make BMC folder: %w", err)
	}
	control := b.node.lab.room.exe + " chassis " + b.node.Name
	lan := fmt.Sprintf(lanConfig, b.node.Name, 16230+b.node.Index, b.GUID, control, password)
	err := errors.Join(
		writeFile(filepath.Join(b.dir, "lan.conf"), lan, 0o600),
		writeFile(filepath.Join(b.dir, "sim.emu"), emulatorConfig, 0o600),
	)
	if err != nil {
		return fmt.Errorf("write BMC config: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(b.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open BMC log: %w", err)
	}
	defer log.Close()
	b.sim = exec.Command("ipmi_sim", "-c", "lan.conf", "-f", "sim.emu", "-s", "state", "-n")
	b.sim.Dir, b.sim.Stdout, b.sim.Stderr = b.dir, log, log
	b.sim.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := b.sim.Start(); err != nil {
		return fmt.Errorf("start ipmi_sim: %w", err)
	}
	b.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan<- struct{}) {
		_ = cmd.Wait()
		close(done)
	}(b.sim, b.done)
	return poll(ctx, 5*time.Second, "BMC of "+b.node.Name, func() bool { return pingBMC(b.simAddress()) })
}

func (b *BMC) stopSim() error {
	if b.sim == nil {
		return nil
	}
	_ = b.sim.Process.Signal(syscall.SIGKILL)
	select {
	case <-b.done:
		b.sim = nil
		return nil
	case <-time.After(killGrace):
		return fmt.Errorf("end BMC of %s: it is not gone", b.node.Name)
	}
}

// asfPing is RMCP's presence ping (IPMI 2.0 §13.2.3).
const asfPing = "\x06\x00\xff\x06\x00\x00\x11\xbe\x80\x00\x00\x00"

func pingBMC(addr string) bool {
	conn, err := net.DialTimeout("udp", addr, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := conn.Write([]byte(asfPing)); err != nil {
		return false
	}
	answer := make([]byte, 128)
	n, err := conn.Read(answer)
	return err == nil && n > 4
}

// OffOrders is how often the BMC was told to switch the node off.
func (b *BMC) OffOrders() int { return int(b.node.offOrders.Load()) }

// Dead makes the BMC silent.
func (b *BMC) Dead() {
	b.node.lab.Logf("%s: BMC dead", b.node.Name)
	b.relay.dead.Store(true)
}

// Slow delays each answer of the BMC.
func (b *BMC) Slow(d time.Duration) {
	b.node.lab.Logf("%s: BMC slow by %v", b.node.Name, d)
	b.relay.delay.Store(int64(d))
}

// WrongPassword restarts the BMC with another password than the one in Password.
func (b *BMC) WrongPassword(ctx context.Context) error {
	b.node.lab.Logf("%s: BMC has another password", b.node.Name)
	return errors.Join(b.stopSim(), b.startSim(ctx, "not-"+b.Password))
}

// Swap exchanges the addresses of two BMCs, as two cables in the wrong sockets do. Users and passwords stay with
// the controllers.
func (b *BMC) Swap(other *BMC) {
	b.node.lab.Logf("BMCs of %s and %s are swapped", b.node.Name, other.node.Name)
	b.relay.point(other.simAddress())
	other.relay.point(b.simAddress())
}

// Heal takes Dead, Slow, WrongPassword and this BMC's half of Swap back.
func (b *BMC) Heal(ctx context.Context) error {
	b.node.lab.Logf("%s: BMC heals", b.node.Name)
	b.relay.dead.Store(false)
	b.relay.delay.Store(0)
	b.relay.point(b.simAddress())
	conf, err := os.ReadFile(filepath.Join(b.dir, "lan.conf"))
	if err == nil && strings.Contains(string(conf), fmt.Sprintf("%q", "not-"+b.Password)) {
		err = errors.Join(b.stopSim(), b.startSim(ctx, b.Password))
	}
	return err
}

// relay passes datagrams between clients and a BMC.
type relay struct {
	dead  atomic.Bool
	delay atomic.Int64 // of each answer, nanoseconds

	front *net.UDPConn
	mu    sync.Mutex
	back  string
	peers map[string]*net.UDPConn // by client address
	wg    sync.WaitGroup
}

func newRelay(address, back string) (*relay, error) {
	local, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, fmt.Errorf("parse BMC address: %w", err)
	}
	front, err := net.ListenUDP("udp", local)
	if err != nil {
		return nil, fmt.Errorf("listen for BMC clients: %w", err)
	}
	r := &relay{front: front, back: back, peers: map[string]*net.UDPConn{}}
	r.wg.Go(r.serve)
	return r, nil
}

// point sends what comes from now on to another BMC. Open sessions are lost.
func (r *relay) point(back string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.back == back {
		return
	}
	r.back = back
	r.forget()
}

// forget needs r.mu.
func (r *relay) forget() {
	for client, conn := range r.peers {
		conn.Close()
		delete(r.peers, client)
	}
}

func (r *relay) close() {
	r.front.Close()
	r.mu.Lock()
	r.back = ""
	r.forget()
	r.mu.Unlock()
	r.wg.Wait()
}

func (r *relay) serve() {
	buf := make([]byte, 2048)
	for {
		n, client, err := r.front.ReadFromUDP(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || r.dead.Load() {
			continue
		}
		if conn := r.peer(client); conn != nil {
			_, _ = conn.Write(buf[:n])
		}
	}
}

// peer is the socket that stands for one client before the BMC.
func (r *relay) peer(client *net.UDPAddr) *net.UDPConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	if conn := r.peers[client.String()]; conn != nil {
		return conn
	}
	back, err := net.ResolveUDPAddr("udp", r.back)
	if err != nil {
		return nil
	}
	conn, err := net.DialUDP("udp", nil, back)
	if err != nil {
		return nil
	}
	r.peers[client.String()] = conn
	r.wg.Go(func() { r.answers(conn, client) })
	return conn
}

// answers carries the BMC's answers to one client until the client was silent for a minute. A refused datagram
// (the BMC restarts) shows as a read error and is only a lost one.
func (r *relay) answers(conn *net.UDPConn, client *net.UDPAddr) {
	defer r.drop(client, conn)
	buf := make([]byte, 2048)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := conn.Read(buf)
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue
		}
		if err != nil {
			return
		}
		if r.dead.Load() {
			continue
		}
		answer := append([]byte(nil), buf[:n]...)
		if d := time.Duration(r.delay.Load()); d > 0 {
			time.AfterFunc(d, func() { _, _ = r.front.WriteToUDP(answer, client) })
			continue
		}
		_, _ = r.front.WriteToUDP(answer, client)
	}
}

func (r *relay) drop(client *net.UDPAddr, conn *net.UDPConn) {
	conn.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.peers[client.String()] == conn {
		delete(r.peers, client.String())
	}
}
