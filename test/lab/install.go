package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// installedIn is where what was installed on a node is kept while its power is off.
func installedIn(state string) string { return filepath.Join(state, "installed") }

func (n *Node) installed(inside string) string { return filepath.Join(installedIn(n.State), inside) }

// Install puts a program on every node as a package does, such as a resource agent at
// /usr/lib/ocf/resource.d/PROVIDER/NAME or a fence agent at /usr/sbin/fence_NAME: now where the power is on, and at
// every later boot. The machine's own folder of that name stays as it is.
func (l *Lab) Install(inside string, program []byte) error {
	for _, n := range l.nodes {
		if err := n.install(inside, program); err != nil {
			return fmt.Errorf("install %s on %s: %w", inside, n.Name, err)
		}
	}
	return nil
}

func (n *Node) install(inside string, program []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := writeProgram(n.installed(inside), program)
	if n.InitPID() == 0 {
		return err
	}
	live, liveErr := n.LivePath(inside)
	if err := errors.Join(err, liveErr); err != nil {
		return err
	}
	return writeProgram(live, program)
}

func writeProgram(path string, program []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, program, 0o755)
}
