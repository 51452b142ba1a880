package probe

import (
	"strings"
	"testing"
)

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "<methodResponse/>",
		"<methodResponse><params><param><value><array><data><value><boolean>1</boolean></value><value><string>6.8</string></value></data></array></value></param></params></methodResponse>",
		"<methodResponse><params><param><value><array><data><value><boolean>1</boolean></value><value><string>&lt;RAFT>&lt;STATE>3&lt;/STATE>&lt;/RAFT></string></value></data></array></value></param></params></methodResponse>",
		"<methodResponse><fault><value><struct><member><name>faultCode</name><value><int>4</int></value></member></struct></value></fault></methodResponse>",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		version, err := parseVersion(body)
		if (version == "") != (err != nil) {
			t.Errorf("version %q, %v", version, err)
		}
		state, err2 := parseRaft(body)
		if err2 == nil && state.String() == "" {
			t.Error("state without a name")
		}
		for _, err := range []error{err, err2} {
			if err != nil && (len(err.Error()) > 1000 || strings.Contains(err.Error(), "\n")) {
				t.Errorf("not fit for a log line: %q", err)
			}
		}
	})
}
