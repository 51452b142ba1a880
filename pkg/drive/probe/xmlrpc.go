package probe

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// encodeCall writes an XML-RPC call with one string parameter.
func encodeCall(method, argument string) []byte {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0"?><methodCall><methodName>`)
	_ = xml.EscapeText(&b, []byte(method))
	b.WriteString(`</methodName><params><param><value><string>`)
	_ = xml.EscapeText(&b, []byte(argument))
	b.WriteString(`</string></value></param></params></methodCall>`)
	return b.Bytes()
}

// value is an XML-RPC value of the kinds that OpenNebula answers with.
type value struct {
	Text    string   `xml:",chardata"`
	String  *string  `xml:"string"`
	Boolean *string  `xml:"boolean"`
	Int     *string  `xml:"i4"`
	Integer *string  `xml:"int"`
	Array   []value  `xml:"array>data>value"`
	Members []member `xml:"struct>member"`
}

type member struct {
	Name  string `xml:"name"`
	Value value  `xml:"value"`
}

// text is what a string, or an untyped value, says.
func (v value) text() string {
	if v.String != nil {
		return *v.String
	}
	return strings.TrimSpace(v.Text)
}

type methodResponse struct {
	XMLName xml.Name `xml:"methodResponse"`
	Params  []value  `xml:"params>param>value"`
	Fault   *value   `xml:"fault>value"`
}

// parseAnswer reads OpenNebula's [success, payload, error code, …] and returns the payload. A fault and a
// failed call are errors in the service's own words.
func parseAnswer(body []byte) (string, error) {
	var response methodResponse
	if err := xml.Unmarshal(body, &response); err != nil {
		return "", fmt.Errorf("answer is not XML-RPC (%s): %q", xmlError(err), excerpt(string(body)))
	}
	if response.Fault != nil {
		return "", fmt.Errorf("XML-RPC fault: %s", faultText(*response.Fault))
	}
	if len(response.Params) != 1 || len(response.Params[0].Array) < 2 {
		return "", fmt.Errorf("answer is not OpenNebula's: %q", excerpt(string(body)))
	}
	answer := response.Params[0].Array
	switch ok := answer[0].Boolean; {
	case ok == nil:
		return "", fmt.Errorf("answer is not OpenNebula's: %q", excerpt(string(body)))
	case strings.TrimSpace(*ok) != "1":
		return "", &refusalError{code: errorCode(answer), text: excerpt(answer[1].text())}
	}
	return answer[1].text(), nil
}

// refusalError is a call that oned answered with false.
type refusalError struct {
	code int
	text string
}

func (e *refusalError) Error() string { return "oned refused: " + e.text }

// codeAuthentication is OpenNebula's error code of a login that failed.
const codeAuthentication = 0x0100

func errorCode(answer []value) int {
	if len(answer) < 3 {
		return 0
	}
	for _, text := range []*string{answer[2].Int, answer[2].Integer} {
		if text != nil {
			code, err := strconv.Atoi(strings.TrimSpace(*text))
			if err == nil {
				return code
			}
		}
	}
	return 0
}

// xmlError keeps a parser's words short: it may quote the whole answer.
func xmlError(err error) string {
	var syntax *xml.SyntaxError
	if errors.As(err, &syntax) {
		return excerpt(syntax.Msg)
	}
	return excerpt(err.Error())
}

func faultText(fault value) string {
	code, text := "", ""
	for _, m := range fault.Members {
		switch m.Name {
		case "faultCode":
			for _, n := range []*string{m.Value.Int, m.Value.Integer} {
				if n != nil {
					code = *n
				}
			}
		case "faultString":
			text = m.Value.text()
		}
	}
	return excerpt(strings.TrimSpace(code + " " + text))
}

// parseVersion reads the answer of one.system.version.
func parseVersion(body []byte) (string, error) {
	version, err := parseAnswer(body)
	if err != nil {
		return "", err
	}
	if version == "" {
		return "", errors.New("oned told no version")
	}
	return excerpt(version), nil
}

// raftState is STATE of one.zone.raftstatus.
type raftState int

// The states of oned's own Raft.
const (
	raftSolo raftState = iota
	raftCandidate
	raftFollower
	raftLeader
)

func (s raftState) String() string {
	if s < raftSolo || s > raftLeader {
		return "state " + strconv.Itoa(int(s))
	}
	return [...]string{"solo", "candidate", "follower", "leader"}[s]
}

// serves reports whether oned in this state does a front-end's work.
func (s raftState) serves() bool { return s == raftSolo || s == raftLeader }

// parseRaft reads the answer of one.zone.raftstatus: <RAFT> … <STATE>n</STATE> … </RAFT> in a string.
func parseRaft(body []byte) (raftState, error) {
	payload, err := parseAnswer(body)
	if err != nil {
		return 0, err
	}
	var raft struct {
		XMLName xml.Name `xml:"RAFT"`
		State   string   `xml:"STATE"`
	}
	if err := xml.Unmarshal([]byte(payload), &raft); err != nil {
		return 0, fmt.Errorf("raft status is not XML (%s): %q", xmlError(err), excerpt(payload))
	}
	state, err := strconv.Atoi(strings.TrimSpace(raft.State))
	if err != nil {
		return 0, fmt.Errorf("raft status has no STATE: %q", excerpt(payload))
	}
	return raftState(state), nil
}
