package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

// Version is what one.system.version answers.
const Version = "6.10.0"

// raftStatus is a solo front-end's: STATE 0 is healthy.
const raftStatus = "<RAFT><SERVER_ID>-1</SERVER_ID><STATE>0</STATE><TERM>0</TERM><VOTEDFOR>-1</VOTEDFOR>" +
	"<COMMIT>0</COMMIT><LOG_INDEX>0</LOG_INDEX><FEDLOG_INDEX>-1</FEDLOG_INDEX></RAFT>"

// oned answers as the real daemon does: an array of success, value or message, and error code.
type oned struct {
	credentials string // file with "user:password"; if it is missing, anyone may ask
}

// methodCall is an XML-RPC request; a value is a string with or without its tag.
type methodCall struct {
	Method string `xml:"methodName"`
	Params []struct {
		Text   string `xml:",chardata"`
		String string `xml:"string"`
	} `xml:"params>param>value"`
}

func (c methodCall) session() string {
	if len(c.Params) == 0 {
		return ""
	}
	if s := c.Params[0].String; s != "" {
		return s
	}
	return strings.TrimSpace(c.Params[0].Text)
}

func (o *oned) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var call methodCall
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err == nil {
		err = xml.Unmarshal(body, &call)
	}
	if r.Method != http.MethodPost || r.URL.Path != "/RPC2" || err != nil {
		http.Error(w, "an XML-RPC call is expected on /RPC2", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	_, _ = io.WriteString(w, o.answer(call))
}

func (o *oned) answer(call methodCall) string {
	values := map[string]string{"one.system.version": Version, "one.zone.raftstatus": raftStatus}
	value, known := values[call.Method]
	switch {
	case !known:
		return fault(-506, fmt.Sprintf("Method '%s' not defined", call.Method))
	case !o.knows(call.session()):
		return failure(fmt.Sprintf("[%s] User couldn't be authenticated, aborting call.", call.Method), 256)
	default:
		return response("<boolean>1</boolean>", "<string>"+escape(value)+"</string>", "<i4>0</i4>")
	}
}

func (o *oned) knows(session string) bool {
	want, err := os.ReadFile(o.credentials)
	if os.IsNotExist(err) {
		return true
	}
	return err == nil && strings.TrimSpace(string(want)) == session
}

func failure(message string, code int) string {
	return response("<boolean>0</boolean>", "<string>"+escape(message)+"</string>", fmt.Sprintf("<i4>%d</i4>", code), "<i4>-1</i4>")
}

const envelope = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<methodResponse>\r\n%s</methodResponse>\r\n"

func response(values ...string) string {
	var array strings.Builder
	for _, v := range values {
		fmt.Fprintf(&array, "<value>%s</value>\r\n", v)
	}
	return fmt.Sprintf(envelope, "<params>\r\n<param><value><array><data>\r\n"+array.String()+"</data></array></value></param>\r\n</params>\r\n")
}

func fault(code int, message string) string {
	return fmt.Sprintf(envelope, fmt.Sprintf("<fault><value><struct>\r\n<member><name>faultCode</name><value><int>%d</int></value></member>\r\n"+
		"<member><name>faultString</name><value><string>%s</string></value></member>\r\n</struct></value></fault>\r\n", code, escape(message)))
}

func escape(s string) string {
	var out strings.Builder
	_ = xml.EscapeText(&out, []byte(s)) // a strings.Builder takes everything
	return out.String()
}
