package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/config"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/pki"
)

// identityFlags are what init and join need to write a node file.
type identityFlags struct {
	name  string
	links []string
}

func (f *identityFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.name, "name", "", "this node's `name`, if there is no node file yet")
	cmd.Flags().StringArrayVar(&f.links, "link", nil, "this node's `address` on a link, once for each link, if there is no node file yet")
}

// node loads the node file, or makes it of the flags. made says whether it is to be written.
func (f *identityFlags) node(cmd *cobra.Command, path string) (node config.NodeFile, made bool, err error) {
	node, err = config.LoadNode(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && (f.name == "" || len(f.links) == 0):
		return node, false, usage(cmd, fmt.Errorf("there is no node file %s yet: give --name and --link", path))
	case errors.Is(err, fs.ErrNotExist):
		text := fmt.Sprintf("name = %q\nlinks = [\"%s\"]\n", f.name, strings.Join(f.links, `", "`))
		node, err = config.ParseNode(text, "flags")
		if err != nil {
			return node, false, usage(cmd, err)
		}
		return node, true, nil
	case err != nil:
		return node, false, err
	case f.name != "" && core.NodeName(f.name) != node.Name:
		return node, false, fmt.Errorf("%w: %s says that this node is %s, not %s", errRefused, path, node.Name, f.name)
	}
	return node, false, nil
}

// writeNode writes the node file, never over another.
func writeNode(path string, node config.NodeFile) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write node file: %w", err)
	}
	return writeNew(path, node.Text(), 0o644)
}

// writeNew writes a file that must not be there yet, and waits until it is on disk.
func writeNew(path, text string, mode fs.FileMode) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = file.WriteString(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (c *cli) initCommand() *cobra.Command {
	var flags identityFlags
	var document, cluster string
	cmd := &cobra.Command{
		Use: "init", Short: "Found a cluster with this node as its first member",
		Long: "Init makes the cluster's CA, this node's certificate and the keys, and leaves the cluster document for the\n" +
			"daemon's first start. It needs no network. Other nodes join: keepone node add NAME here, keepone join there.",
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		node, made, err := flags.node(cmd, c.nodeFile)
		if err != nil {
			return err
		}
		text, err := c.firstDocument(cmd, node, document, cluster)
		if err != nil {
			return err
		}
		return c.found(node, made, text)
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&document, "config", "", "the cluster document: a `file` that names this node, and the others if you like")
	cmd.Flags().StringVar(&cluster, "cluster", "", "the cluster's `name`, where there is no --config")
	return cmd
}

// firstDocument reads the document that a cluster is founded with, or makes one with this node alone.
func (c *cli) firstDocument(cmd *cobra.Command, node config.NodeFile, path, cluster string) (string, error) {
	if path == "" && cluster == "" {
		return "", usage(cmd, errors.New("give --config FILE, or --cluster NAME to begin with this node alone"))
	}
	if path != "" {
		text, spec, err := c.checked(path)
		if err == nil && spec.Node(node.Name) == nil {
			err = fmt.Errorf("%w: %s does not name this node, %s: add its [[node]]", errRefused, path, node.Name)
		}
		return text, err
	}
	links := make([]string, len(node.Links))
	for i, link := range node.Links {
		links[i] = fmt.Sprintf("%q", link)
	}
	text := fmt.Sprintf("cluster = %q\n\n[[node]]\nname = %q\nlinks = [%s]\n", cluster, node.Name, strings.Join(links, ", "))
	if _, err := config.Parse(text, config.Options{File: "cluster document"}); err != nil {
		return "", usage(cmd, err)
	}
	return text, nil
}

// found writes what makes this node a cluster's first: node file, identity, document. What it wrote is taken
// away again if it fails, so that init can be said again.
func (c *cli) found(node config.NodeFile, made bool, text string) error {
	id, err := pki.Init(node.DataDir, node.Name)
	if errors.Is(err, pki.ErrExists) {
		return memberAlready(node)
	}
	if err != nil {
		return err
	}
	sealed, err := config.Seal(text, id.Seal)
	if err == nil {
		err = writeNew(filepath.Join(node.DataDir, config.FoundingFile), sealed, 0o600)
	}
	if err == nil && made {
		err = writeNode(c.nodeFile, node)
	}
	if err != nil {
		return errors.Join(err, pki.Remove(node.DataDir))
	}
	c.printf("Done: %s is the first member of a new cluster. Start it: systemctl enable --now keepone-guard keeponed\n", node.Name)
	return nil
}

func memberAlready(node config.NodeFile) error {
	return fmt.Errorf("%w: this node is a member of a cluster already: its identity is in %s. To begin anew, remove it from "+
		"that cluster (keepone node remove %s), stop keeponed and empty %s",
		errRefused, filepath.Join(node.DataDir, "pki"), node.Name, node.DataDir)
}

func (c *cli) joinCommand() *cobra.Command {
	var flags identityFlags
	var servers []string
	var token string
	cmd := &cobra.Command{
		Use: "join", Short: "Make this node a member of a cluster",
		Long: "The token comes from keepone node add NAME on a member. Without --token it is read from standard input,\n" +
			"where no list of processes shows it.",
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		node, made, err := flags.node(cmd, c.nodeFile)
		if err != nil {
			return err
		}
		addresses, err := memberAddresses(servers, node.Ports.API)
		if err != nil {
			return usage(cmd, err)
		}
		secret, err := c.readToken(token)
		if err != nil {
			return usage(cmd, err)
		}
		return c.join(cmd, node, made, addresses, secret)
	}
	flags.add(cmd)
	cmd.Flags().StringArrayVar(&servers, "server", nil, "`address` of a member; once for each that may be tried")
	cmd.Flags().StringVar(&token, "token", "", "the `token` (default: read from standard input)")
	return cmd
}

func (c *cli) join(cmd *cobra.Command, node config.NodeFile, made bool, addresses []netip.AddrPort, token pki.Token) error {
	newcomer, err := pki.NewNewcomer(node.DataDir, node.Name, token)
	if errors.Is(err, pki.ErrExists) {
		return memberAlready(node)
	}
	if err != nil {
		return err
	}
	if made {
		if err := writeNode(c.nodeFile, node); err != nil {
			return err
		}
	}
	answer, err := api.Join(cmd.Context(), newcomer, addresses, nil)
	if err != nil {
		return err
	}
	if _, err := newcomer.Finish(node.DataDir, answer); err != nil {
		return fmt.Errorf("the cluster took this node in, but that could not be kept here; ask for another token: %w", err)
	}
	c.printf("Done: %s is a member. Start it: systemctl enable --now keepone-guard keeponed\n", node.Name)
	return nil
}

func (c *cli) readToken(text string) (pki.Token, error) {
	if text == "" {
		if c.terminal() {
			fmt.Fprint(c.err, "Token: ")
		}
		line, err := bufio.NewReader(c.in).ReadString('\n')
		if err != nil && line == "" {
			return pki.Token{}, errors.New("no token: keepone node add NAME on a member makes one")
		}
		text = line
	}
	token, err := pki.ParseToken(strings.TrimSpace(text))
	if err != nil {
		return token, fmt.Errorf("read token: %w", err)
	}
	return token, nil
}

// memberAddresses reads addresses with or without a port.
func memberAddresses(servers []string, port uint16) ([]netip.AddrPort, error) {
	if len(servers) == 0 {
		return nil, errors.New("give --server ADDRESS of a member")
	}
	var list []netip.AddrPort
	for _, text := range servers {
		if whole, err := netip.ParseAddrPort(text); err == nil {
			list = append(list, whole)
			continue
		}
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("%q is no IP address of a member", text)
		}
		list = append(list, netip.AddrPortFrom(addr, port))
	}
	return list, nil
}
