package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// chassisSocket is an abstract socket: it is known in the room's network namespace alone, so no node reaches it.
const chassisSocket = "@keepone-lab-chassis"

// chassisBound is what a power order may take. ipmi_sim waits for it, and its clients try again after a second.
const chassisBound = 5 * time.Second

// chassis is what ipmi_sim runs for its chassis_control: "NODE [MC] get PARAM...", "set PARAM VALUE ..." or
// "check PARAM...". It passes the words on and prints the answer.
func chassis(args []string, stdio Stdio) error {
	conn, err := net.DialTimeout("unix", chassisSocket, time.Second)
	if err != nil {
		return fmt.Errorf("reach the lab: %w", err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(chassisBound))
	fmt.Fprintln(conn, strings.Join(args, " "))
	text, err := io.ReadAll(conn)
	if err != nil {
		return fmt.Errorf("ask the lab: %w", err)
	}
	answer, failed := strings.CutPrefix(string(text), "error ")
	if failed {
		return errors.New(strings.TrimSpace(answer))
	}
	_, err = io.WriteString(stdio.Out, answer)
	return err
}

// chassisServer carries out what the BMCs order.
type chassisServer struct {
	lab      *Lab
	listener net.Listener
	ctx      context.Context // ends with the server: power orders outlive the connection that brought them
	stop     context.CancelFunc
	wg       sync.WaitGroup
}

func serveChassis(l *Lab) (*chassisServer, error) {
	listener, err := net.Listen("unix", chassisSocket)
	if err != nil {
		return nil, fmt.Errorf("listen for BMCs: %w", err)
	}
	s := &chassisServer{lab: l, listener: listener}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.wg.Go(s.serve)
	return s, nil
}

func (s *chassisServer) close() error {
	s.stop()
	err := s.listener.Close()
	s.wg.Wait()
	return err
}

func (s *chassisServer) serve() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.wg.Go(func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(chassisBound))
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil {
				return
			}
			answer, err := s.obey(strings.Fields(line))
			if err != nil {
				answer = "error " + err.Error() + "\n"
			}
			_, _ = io.WriteString(conn, answer)
		})
	}
}

func (s *chassisServer) obey(words []string) (string, error) {
	i := slices.IndexFunc(words, func(w string) bool { return w == "get" || w == "set" || w == "check" })
	if i < 1 {
		return "", fmt.Errorf("no get, set or check in %q", words)
	}
	node := s.lab.nodeNamed(words[0])
	if node == nil {
		return "", fmt.Errorf("no node %q", words[0])
	}
	switch params := words[i+1:]; words[i] {
	case "get":
		return readChassis(node, params), nil
	case "set":
		return "", s.set(node, params)
	default:
		return "", nil
	}
}

func readChassis(node *Node, params []string) string {
	var answer strings.Builder
	for _, param := range params {
		value := 0
		if param == "power" && node.IsUp() {
			value = 1
		}
		fmt.Fprintf(&answer, "%s:%d\n", param, value)
	}
	return answer.String()
}

// set is idempotent. Off returns when the node is cut; on and reset as soon as the order is under way, since a
// boot takes longer than a client of IPMI waits.
func (s *chassisServer) set(node *Node, params []string) error {
	for ; len(params) >= 2; params = params[2:] {
		switch order := params[0] + " " + params[1]; order {
		case "power 0", "shutdown 1":
			s.lab.Logf("%s: its BMC orders power off", node.Name)
			node.offOrders.Add(1)
			if err := node.PowerCut(s.ctx); err != nil {
				return err
			}
		case "power 1":
			if node.on.Swap(true) {
				continue
			}
			s.lab.Logf("%s: its BMC orders power on", node.Name)
			s.later(node, node.PowerOn)
		case "reset 1":
			s.lab.Logf("%s: its BMC orders a reset", node.Name)
			s.later(node, node.Reset)
		}
	}
	return nil
}

func (s *chassisServer) later(node *Node, order func(context.Context) error) {
	s.wg.Go(func() {
		if err := order(s.ctx); err != nil {
			s.lab.Logf("%s: order of its BMC: %v", node.Name, err)
		}
	})
}

func (l *Lab) nodeNamed(name string) *Node {
	i := slices.IndexFunc(l.nodes, func(n *Node) bool { return n.Name == name })
	if i < 0 {
		return nil
	}
	return l.nodes[i]
}
