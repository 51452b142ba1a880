// Command man writes the manual pages that are not the CLI's own: of a daemon from its text, of an agent from the
// metadata that it prints.
package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
)

var errUsage = errors.New("usage: man DATE VERSION OUT PAGE.SECTION.md|PAGE.SECTION.xml [MORE]")

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 4 {
		return errUsage
	}
	if _, err := time.Parse(time.DateOnly, args[0]); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	for _, path := range args[3:] {
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read page: %w", err)
		}
		kind := filepath.Ext(path)
		page := strings.TrimSuffix(filepath.Base(path), kind)
		body := string(text)
		if kind == ".xml" {
			if body, err = agent(page, text); err != nil {
				return err
			}
		}
		head, err := title(page, args[0], args[1])
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(args[2], page), md2man.Render([]byte(head+body)), 0o644); err != nil {
			return fmt.Errorf("write page: %w", err)
		}
	}
	return nil
}

// title is a page's first lines, as md2man wants them.
func title(page, date, version string) (string, error) {
	dot := strings.LastIndex(page, ".")
	if dot < 1 || dot+2 != len(page) {
		return "", fmt.Errorf("%w: %q names no section", errUsage, page)
	}
	return fmt.Sprintf("%% %q %q %q %q %q\n\n", strings.ToUpper(page[:dot]), page[dot+1:], date, "keepone "+version, "keepone"), nil
}

// metadata is what OCF resource agents and fence agents print, as far as a manual page shows it.
type metadata struct {
	Name      string `xml:"name,attr"`
	Short     string `xml:"shortdesc,attr"`
	ShortText string `xml:"shortdesc"`
	Long      string `xml:"longdesc"`

	Parameters []parameter `xml:"parameters>parameter"`
	Actions    []struct {
		Name    string `xml:"name,attr"`
		Timeout string `xml:"timeout,attr"`
	} `xml:"actions>action"`
}

type parameter struct {
	Name       string `xml:"name,attr"`
	Required   string `xml:"required,attr"`
	Deprecated string `xml:"deprecated,attr"`
	Short      string `xml:"shortdesc"`
	Long       string `xml:"longdesc"`
	Option     struct {
		Mixed string `xml:"mixed,attr"`
	} `xml:"getopt"`
	Content struct {
		Default string `xml:"default,attr"`
	} `xml:"content"`
}

// agent is an agent's page in markdown.
func agent(page string, text []byte) (string, error) {
	var m metadata
	if err := xml.Unmarshal(text, &m); err != nil {
		return "", fmt.Errorf("read metadata of %s: %w", page, err)
	}
	name := page[:strings.LastIndex(page, ".")]
	var b strings.Builder
	fmt.Fprintf(&b, "# NAME\n\n%s - %s\n\n# DESCRIPTION\n\n%s\n\n# PARAMETERS\n\n", name, m.Short+m.ShortText, m.Long)
	for _, p := range m.Parameters {
		if p.Deprecated == "1" {
			continue
		}
		fmt.Fprintf(&b, "**%s**", p.Name)
		if p.Option.Mixed != "" {
			fmt.Fprintf(&b, " (`%s`)", p.Option.Mixed)
		}
		words := p.Long
		if words == "" {
			words = p.Short + "."
		}
		if p.Required == "1" {
			words += " Required."
		}
		if p.Content.Default != "" {
			words += " Default: " + p.Content.Default + "."
		}
		fmt.Fprintf(&b, "\n: %s\n\n", strings.Join(strings.Fields(words), " "))
	}
	b.WriteString("# ACTIONS\n\n")
	for _, a := range m.Actions {
		fmt.Fprintf(&b, "**%s**", a.Name)
		if a.Timeout != "" {
			fmt.Fprintf(&b, " (timeout %s)", a.Timeout)
		}
		b.WriteString("\n\n")
	}
	b.WriteString("# SEE ALSO\n\nkeepone(8), keeponed(8)\n")
	return b.String(), nil
}
