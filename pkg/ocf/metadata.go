package ocf

import (
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// The metadata keep to what all three schemas in use know: ra-api-1.dtd (ocf-tester), resource-agents' metadata.rng and
// pcs' ocf-1.1.rng. That leaves no room for unique-group, reloadable and select. The DTD is from before reload-agent:
// the document type's own subset, which is read first, lets an action have any name.
const header = `<?xml version="1.0"?>
<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd" [
<!ATTLIST action name CDATA #REQUIRED>
]>
`

type (
	xmlAgent struct {
		XMLName xml.Name    `xml:"resource-agent"`
		Name    string      `xml:"name,attr"`
		Release string      `xml:"version,attr,omitempty"`
		Version string      `xml:"version"` // of the API
		Long    xmlText     `xml:"longdesc"`
		Short   xmlText     `xml:"shortdesc"`
		Params  []xmlParam  `xml:"parameters>parameter"`
		Actions []xmlAction `xml:"actions>action"`
	}
	xmlText struct {
		Lang string `xml:"lang,attr"`
		Text string `xml:",innerxml"` // escaped
	}
	xmlParam struct {
		Name     string     `xml:"name,attr"`
		Unique   string     `xml:"unique,attr,omitempty"`
		Required string     `xml:"required,attr,omitempty"`
		Long     xmlText    `xml:"longdesc"`
		Short    xmlText    `xml:"shortdesc"`
		Content  xmlContent `xml:"content"`
	}
	xmlContent struct {
		Type    string  `xml:"type,attr"`
		Default *string `xml:"default,attr"`
	}
	xmlAction struct {
		Name     Verb   `xml:"name,attr"`
		Depth    string `xml:"depth,attr,omitempty"`
		Timeout  string `xml:"timeout,attr"`
		Interval string `xml:"interval,attr,omitempty"`
		Role     Role   `xml:"role,attr,omitempty"`
	}
)

// WriteMetadata writes the agent's metadata. It needs nothing: no parameter, no right, no cluster.
func (a *Agent) WriteMetadata(w io.Writer) error {
	x := xmlAgent{
		Name: a.Name, Release: a.Version, Version: "1.1",
		Long: english(a.Long), Short: english(a.Short),
	}
	for _, p := range a.Params {
		row := xmlParam{
			Name: p.Name, Unique: flag(p.Unique), Required: flag(p.Required),
			Long: english(p.Long), Short: english(p.Short), Content: xmlContent{Type: p.Value.Type()},
		}
		if !p.Required {
			row.Content.Default = &p.Default
		}
		x.Params = append(x.Params, row)
	}
	for _, action := range a.Actions {
		x.Actions = append(x.Actions, action.xml())
	}
	text, err := xml.MarshalIndent(x, "", "  ")
	if err != nil {
		return fmt.Errorf("encode metadata: %w", err)
	}
	short := strings.NewReplacer("></content>", "/>", "></action>", "/>").Replace(string(text))
	if _, err := io.WriteString(w, header+short+"\n"); err != nil {
		return fmt.Errorf("write metadata: %w", err)
	}
	return nil
}

func (action Action) xml() xmlAction {
	x := xmlAction{Name: action.Verb, Timeout: seconds(action.Timeout), Role: action.Role}
	if action.Verb == Monitor {
		x.Depth, x.Interval = strconv.Itoa(action.Depth), seconds(action.Interval)
	}
	return x
}

// english escapes what must be escaped and no more: people read metadata too.
func english(text string) xmlText {
	escaped := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(strings.TrimSpace(text))
	return xmlText{Lang: "en", Text: escaped}
}

func flag(yes bool) string {
	if yes {
		return "1"
	}
	return ""
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d/time.Second)) + "s" }
