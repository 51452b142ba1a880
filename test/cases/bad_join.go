package cases

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	addBad("init-twice", true, 1, initTwice)
	addBad("join-token-used", true, 3, tokenUsed)
	addBad("join-token-expired", true, 3, tokenExpired)
	addBad("duplicate-node-name", true, 3, duplicateName)
	addBad("wrong-ca", true, 3, wrongCA)
}

const identityDir = "/var/lib/keepone/pki"

// initTwice founds on a member once more: its identity and its cluster stay.
func initTwice(ctx context.Context, l *lab.Lab) error {
	c, err := foundAlone(ctx, l)
	if err != nil {
		return err
	}
	n := l.Node(1)
	before, err := os.ReadFile(n.Path(identityDir + "/node.crt"))
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	words := []string{"member of a cluster already", identityDir}
	if err := c.refused(ctx, n, words, "init", "--config", clusterFile); err != nil {
		return err
	}
	token, err := c.token(ctx, "n1")
	if err != nil {
		return err
	}
	if err := c.refused(ctx, n, words, "join", "--token", token, "--server", n.Address(0)); err != nil {
		return err
	}
	after, err := os.ReadFile(n.Path(identityDir + "/node.crt"))
	if err != nil || string(after) != string(before) {
		return errors.Join(errors.New("the certificate is another one now"), err)
	}
	if err := n.Kill(ctx, lab.Daemon); err != nil {
		return err
	}
	return await(ctx, formLimit, "the same cluster again", func() error {
		s, err := c.status(ctx, n)
		if err == nil && (!s.Quorum || len(s.Nodes) != 1) {
			err = fmt.Errorf("status %+v", s)
		}
		return err
	})
}

// token makes one on the first node.
func (c *cluster) token(ctx context.Context, name string, args ...string) (string, error) {
	out, err := c.keepone(ctx, c.Node(1), append([]string{"node", "add", name, "--quiet"}, args...)...)
	return strings.TrimSpace(out), err
}

// noIdentity is an error if a node that was turned away kept something that would turn the next join away too.
func noIdentity(n *lab.Node) error {
	if _, err := os.Stat(n.Path(identityDir)); err == nil {
		return fmt.Errorf("%s was turned away and has %s", n.Name, identityDir)
	}
	return nil
}

// joinsNow lets a node in with a fresh token, and sees it online.
func (c *cluster) joinsNow(ctx context.Context, n *lab.Node) error {
	if err := errors.Join(noIdentity(n), c.join(ctx, n)); err != nil {
		return err
	}
	return await(ctx, formLimit, n.Name+" online", func() error {
		s, err := c.status(ctx, c.Node(1))
		for _, node := range s.Nodes {
			if node.Name == n.Name && node.State == "online" {
				return nil
			}
		}
		return errors.Join(errors.New("it is not"), err)
	})
}

// tokenUsed joins twice with one token: the second time the node lost its identity, as after a new installation.
func tokenUsed(ctx context.Context, l *lab.Lab) error {
	c, err := foundAlone(ctx, l)
	if err != nil {
		return err
	}
	n := l.Node(2)
	token, err := c.token(ctx, n.Name)
	if err != nil {
		return err
	}
	join := []string{"join", "--token", token, "--server", l.Node(1).Address(0)}
	if _, err := c.keepone(ctx, n, join...); err != nil {
		return err
	}
	if err := os.RemoveAll(n.Path(identityDir)); err != nil {
		return fmt.Errorf("forget identity: %w", err)
	}
	if err := c.refused(ctx, n, []string{"used already", "keepone node add " + n.Name}, join...); err != nil {
		return err
	}
	if err := awaitLogged(ctx, time.Second, l.Node(1), lab.Daemon, "join refused", "node="+n.Name); err != nil {
		return err
	}
	return c.joinsNow(ctx, n)
}

// tokenExpired joins after the token's end, by the cluster's own clock.
func tokenExpired(ctx context.Context, l *lab.Lab) error {
	c, err := foundAlone(ctx, l)
	if err != nil {
		return err
	}
	n := l.Node(2)
	token, err := c.token(ctx, n.Name, "--for", "1s")
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(1200 * time.Millisecond): // the token's own time
	}
	join := []string{"join", "--token", token, "--server", l.Node(1).Address(0)}
	if err := c.refused(ctx, n, []string{"expired", "keepone node add " + n.Name}, join...); err != nil {
		return err
	}
	return c.joinsNow(ctx, n)
}

// duplicateName lets a third machine call itself by the name of a node that is online.
func duplicateName(ctx context.Context, l *lab.Lab) error {
	c, err := foundAlone(ctx, l)
	if err != nil {
		return err
	}
	if err := c.joinsNow(ctx, l.Node(2)); err != nil {
		return err
	}
	n := l.Node(3)
	own := c.node(n)
	if err := write(n, nodeFile, strings.Replace(own, `"n3"`, `"n2"`, 1)); err != nil {
		return err
	}
	token, err := c.token(ctx, "n2")
	if err != nil {
		return err
	}
	join := []string{"join", "--token", token, "--server", l.Node(1).Address(0)}
	if err := c.refused(ctx, n, []string{`"n2" is online`}, join...); err != nil {
		return err
	}
	if err := write(n, nodeFile, own); err != nil {
		return err
	}
	if err := c.refused(ctx, n, []string{`"n2"`, `"n3"`}, join...); err != nil { // that token is another node's
		return err
	}
	if err := c.joinsNow(ctx, n); err != nil {
		return err
	}
	return c.awaitOnline(ctx, formLimit)
}

// wrongCA gives a member the identity that another cluster made for it, as a wrong backup does.
func wrongCA(ctx context.Context, l *lab.Lab) error {
	c, err := foundAlone(ctx, l)
	if err != nil {
		return err
	}
	n := l.Node(3)
	for _, newcomer := range []*lab.Node{l.Node(2), n} {
		if err := c.joinsNow(ctx, newcomer); err != nil {
			return err
		}
	}
	if err := n.Stop(ctx, lab.Daemon); err != nil {
		return err
	}
	pki := n.Path(identityDir)
	if err := os.Rename(pki, pki+".right"); err != nil {
		return fmt.Errorf("put identity aside: %w", err)
	}
	if err := write(n, clusterFile, c.document); err != nil {
		return err
	}
	if _, err := c.keepone(ctx, n, "init", "--config", clusterFile); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(filepath.Dir(pki), "founding.toml")); err != nil {
		return fmt.Errorf("remove founding document: %w", err)
	}
	if err := n.Start(ctx, lab.Daemon); err != nil {
		return err
	}
	if err := errors.Join(
		awaitLogged(ctx, 5*time.Second, n, lab.Daemon, "level=WARN", identityDir, "is not the one that this node's log was made with"),
		awaitLogged(ctx, 5*time.Second, l.Node(1), lab.Daemon, "reach node n3", "it belongs to another cluster"),
		c.awaitSaid(ctx, 15*time.Second, l.Node(1), doctor, "no report: see its journal"),
	); err != nil {
		return err
	}
	if s, err := c.status(ctx, l.Node(2)); err != nil || !s.Quorum {
		return errors.Join(errors.New("the others lost their quorum"), err)
	}
	if err := n.Stop(ctx, lab.Daemon); err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(pki), os.Rename(pki+".right", pki)); err != nil {
		return fmt.Errorf("put identity back: %w", err)
	}
	if err := n.Start(ctx, lab.Daemon); err != nil {
		return err
	}
	return c.awaitOnline(ctx, formLimit)
}
