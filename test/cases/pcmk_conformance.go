package cases

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	lab.Register(lab.Case{
		Name: "pcmk/conformance", Limit: managedLimit, Needs: managedNeeds,
		Run: func(ctx context.Context, t *lab.T) error { return conformance(ctx, t.Lab) },
	})
}

const agentFolder = "/usr/lib/ocf/resource.d/keepone/"

// conformance: the agents keep to OCF against a live keepone, everything that reads metadata reads theirs, and what the
// setup prints makes the cluster that it is checked against.
func conformance(ctx context.Context, l *lab.Lab) error {
	c, err := foundManaged(ctx, l, nil)
	if err != nil {
		return err
	}
	// No resource yet: ocf-tester calls the agents by itself, and the setup is loaded by its own commands later.
	seed := lab.SeedCIB(map[string]string{"dc-deadtime": "2s"}, "", "")
	if err := l.StartPacemaker(ctx, lab.Pacemaker{Totem: recommended, CIB: seed, Manual: true}); err != nil {
		return err
	}
	if err := l.AwaitPacemaker(ctx, formLimit); err != nil {
		return err
	}
	m := &managed{cluster: c, style: stylePromotable}
	for _, step := range []func(context.Context) error{m.readMetadata, m.testAgents, m.loadStyles, m.setUpByCommands} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// says runs a program on the first node, and is an error unless it ends well and prints all of the words.
func (m *managed) says(ctx context.Context, words string, argv ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := m.Node(1).Exec(ctx, argv...)
	m.Logf("%s → %s", strings.Join(argv, " "), out)
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
	}
	for word := range strings.FieldsSeq(words) {
		if !strings.Contains(out, word) {
			return fmt.Errorf("%s does not say %q: %s", strings.Join(argv, " "), word, out)
		}
	}
	return nil
}

// readMetadata has every reader of metadata in the stack read those of the agents.
func (m *managed) readMetadata(ctx context.Context) error {
	var errs []error
	for agent, words := range map[string]string{"rbd": "service device", "container": "service mode", "controller": "grace socket"} {
		name := "ocf:keepone:" + agent
		option := "service=" + service
		if agent == "controller" {
			option = "grace=15"
		}
		errs = append(errs,
			m.says(ctx, words, "crm_resource", "--show-metadata", name),
			m.says(ctx, "", "crm_resource", "--validate", "--class", "ocf", "--provider", "keepone", "--agent", agent, "--option", option),
			m.says(ctx, words, "pcs", "resource", "describe", name),
			m.says(ctx, words, "crm", "ra", "info", name),
			m.schemas(ctx, []string{agentFolder + agent, "meta-data"}, "--valid",
				"--relaxng /usr/share/resource-agents/metadata.rng", "--relaxng /usr/share/pcs/data/ocf-1.1.rng"))
	}
	const words = "power_timeout alone_delay node_file"
	errs = append(errs,
		m.says(ctx, words, "stonith_admin", "--metadata", "--agent", "fence_keepone"),
		m.says(ctx, words, "pcs", "stonith", "describe", "fence_keepone"),
		m.says(ctx, words, "crm", "ra", "info", "stonith:fence_keepone"),
		m.schemas(ctx, []string{"/usr/sbin/fence_keepone", "-o", "metadata"}, "--relaxng /usr/share/cluster/relaxng/metadata.rng"))
	return errors.Join(errs...)
}

// schemas holds what a program prints against each schema.
func (m *managed) schemas(ctx context.Context, argv []string, against ...string) error {
	text, err := m.Node(1).Exec(ctx, argv...)
	if err != nil {
		return fmt.Errorf("%s: %w: %s", argv[0], err, text)
	}
	file := m.Node(1).Path(metadataFile)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write metadata: %w", err)
	}
	var errs []error
	for _, schema := range against {
		xmllint := append([]string{"xmllint", "--nonet", "--noout", "--path", "/usr/share/resource-agents"}, strings.Fields(schema)...)
		errs = append(errs, m.says(ctx, "", append(xmllint, metadataFile)...))
	}
	return errors.Join(errs...)
}

// testAgents runs ocf-tester on each: it starts, stops and promotes in every order, and once more.
func (m *managed) testAgents(ctx context.Context) error {
	for _, t := range []struct {
		agent   string
		options []string
	}{
		{"controller", nil},
		{"rbd", []string{"-o", "service=" + service}},
		{"container", []string{"-o", "service=" + service}},
	} {
		argv := append([]string{"ocf-tester", "-n", t.agent + "-" + service}, t.options...)
		if err := m.says(ctx, "passed", append(argv, agentFolder+t.agent)...); err != nil {
			return err
		}
	}
	return nil
}

// Files of this case on the first node.
const (
	workFolder   = "/var/lib/keepone/"
	metadataFile = workFolder + "metadata.xml"
	commandsFile = workFolder + "setup.sh"
)

// loadStyles has Pacemaker and pcs take what is printed for each style, away from the live cluster.
func (m *managed) loadStyles(ctx context.Context) error {
	for _, style := range []string{styleOne, stylePromotable} {
		text, err := m.keepone(ctx, m.Node(1), "pacemaker", "setup", "--style", style, "--format", "xml")
		if err != nil {
			return err
		}
		cib := workFolder + style + ".xml"
		if err := write(m.Node(1), cib, text); err != nil {
			return err
		}
		if err := m.says(ctx, "", "crm_verify", "--verbose", "--xml-file", cib); err != nil {
			return err
		}
		made := workFolder + style + "-by-pcs.xml"
		if err := m.runCommands(ctx, style, func(script string) string { return offline(script, made) }); err != nil {
			return err
		}
		if _, err := m.keepone(ctx, m.Node(1), "pacemaker", "setup", "--style", style, "--check", "--cib", made); err != nil {
			return err
		}
	}
	return nil
}

// runCommands runs the printed commands for pcs, changed as told.
func (m *managed) runCommands(ctx context.Context, style string, change func(string) string) error {
	script, err := m.keepone(ctx, m.Node(1), "pacemaker", "setup", "--style", style)
	if err != nil {
		return err
	}
	if err := write(m.Node(1), commandsFile, "cd "+workFolder+"\n"+change(script)); err != nil {
		return err
	}
	return m.says(ctx, "", "sh", commandsFile)
}

// offline keeps the result of the commands in a file in the place of the cluster.
func offline(script, file string) string {
	var kept strings.Builder
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, "pcs cluster cib-push ") {
			line = "cp keepone-cib.xml " + file + "\n"
		}
		kept.WriteString(line)
	}
	return kept.String()
}

// setUpByCommands makes the cluster as an operator does, and then a difference.
func (m *managed) setUpByCommands(ctx context.Context) error {
	whole := func(script string) string { return script }
	if err := m.runCommands(ctx, m.style, whole); err != nil {
		return err
	}
	if err := m.awaitManaged(ctx, formLimit); err != nil {
		return err
	}
	check := []string{"pacemaker", "setup", "--style", m.style, "--check"}
	if out, err := m.keepone(ctx, m.Node(1), check...); err != nil || !strings.Contains(out, "Nothing differs.") {
		return fmt.Errorf("the cluster made by the setup's own commands differs from it: %w: %s", err, out)
	}
	if err := m.says(ctx, "", "pcs", "property", "set", "no-quorum-policy=ignore"); err != nil {
		return err
	}
	if err := m.says(ctx, "", "pcs", "constraint", "delete", "eligible-rbd-"+service+"-clone"); err != nil {
		return err
	}
	out, err := m.keepone(ctx, m.Node(1), check...)
	if err == nil {
		return fmt.Errorf("two differences, and none is named: %s", out)
	}
	for _, words := range []string{"no-quorum-policy", "constraint is missing", "Differences: 2"} {
		if !strings.Contains(out, words) {
			return fmt.Errorf("the check does not say %q: %s", words, out)
		}
	}
	return nil
}
