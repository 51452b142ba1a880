package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

const (
	shortDesc = "Fence agent for nodes of a keepone cluster"
	longDesc  = "fence_keepone has keepone fence a node: one order, committed by the cluster, however often it is asked. " +
		"It says success only when the node is proven harmless as a whole: its BMC reads off twice, it came back as another " +
		"instance, its watchdog has bitten, or an operator vouched for it. Without the daemon of this node it asks the other " +
		"nodes' daemons; without a keepone leader it powers the node off itself, if corosync is quorate here."
)

// printMetadata writes the XML that /usr/share/cluster/relaxng/metadata.rng describes, from the table.
func printMetadata(out io.Writer) {
	fmt.Fprintln(out, `<?xml version="1.0" ?>`)
	fmt.Fprintf(out, "<resource-agent name=\"fence_keepone\" shortdesc=\"%s\">\n", escape(shortDesc))
	fmt.Fprintf(out, "<longdesc>%s</longdesc>\n", escape(longDesc))
	fmt.Fprintln(out, "<vendor-url>https://github.com/keepone-ha/keepone</vendor-url>\n<parameters>")
	for _, row := range table {
		row.metadata(out)
	}
	fmt.Fprintln(out, "</parameters>\n<actions>")
	for _, a := range actions {
		extra := ""
		if a == ActionOn {
			extra = ` automatic="0"`
		}
		fmt.Fprintf(out, "\t<action name=\"%s\"%s />\n", a, extra)
	}
	fmt.Fprintln(out, "</actions>\n</resource-agent>")
}

func (row option) metadata(out io.Writer) {
	extra := ""
	if row.deprecated {
		extra += ` deprecated="1"`
	}
	if row.obsoletes != "" {
		extra += fmt.Sprintf(` obsoletes="%s"`, escape(row.obsoletes))
	}
	required := 0
	if row.required {
		required = 1
	}
	fmt.Fprintf(out, "\t<parameter name=\"%s\" unique=\"0\" required=\"%d\"%s>\n", escape(row.name), required, extra)
	fmt.Fprintf(out, "\t\t<getopt mixed=\"%s\" />\n", escape(row.getopt()))
	content := fmt.Sprintf(`<content type="%s"`, row.kind)
	if row.fallback != "" {
		content += fmt.Sprintf(` default="%s"`, escape(row.fallback))
	}
	if len(row.choices) == 0 {
		fmt.Fprintf(out, "\t\t%s />\n", content)
	} else {
		fmt.Fprintf(out, "\t\t%s>\n", content)
		for _, choice := range row.choices {
			fmt.Fprintf(out, "\t\t\t<option value=\"%s\" />\n", escape(choice))
		}
		fmt.Fprintln(out, "\t\t</content>")
	}
	fmt.Fprintf(out, "\t\t<shortdesc lang=\"en\">%s</shortdesc>\n\t</parameter>\n", escape(row.help))
}

// getopt is how the option is written on the command line.
func (row option) getopt() string {
	text := "--" + strings.ReplaceAll(row.name, "_", "-")
	if row.short != "" {
		text = "-" + row.short + ", " + text
	}
	if row.value != "" {
		text += "=[" + row.value + "]"
	}
	return text
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder takes all
	return b.String()
}

// printHelp lists the options, from the table.
func printHelp(out io.Writer) {
	fmt.Fprintf(out, "fence_keepone: %s\n\nOptions on the command line; without any they are read from stdin as option=value lines.\n\n", shortDesc)
	for _, row := range table {
		help := row.help
		if row.fallback != "" {
			help += " (default: " + row.fallback + ")"
		}
		fmt.Fprintf(out, "  %-32s %s\n", row.getopt(), help)
	}
	fmt.Fprintf(out, "\nActions: %v\n", actions)
}
