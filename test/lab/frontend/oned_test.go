package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOnedAnswers(t *testing.T) {
	auth := filepath.Join(t.TempDir(), "one_auth")
	if err := os.WriteFile(auth, []byte("oneadmin:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	call := func(method, session string) string {
		return "<?xml version=\"1.0\"?><methodCall><methodName>" + method + "</methodName><params><param><value><string>" +
			session + "</string></value></param></params></methodCall>"
	}
	for _, c := range []struct{ name, body, want string }{
		{"version", call("one.system.version", "oneadmin:secret"), "<string>" + Version + "</string>"},
		{"raft status", call("one.zone.raftstatus", "oneadmin:secret"), "&lt;STATE&gt;0&lt;/STATE&gt;"},
		{"wrong password", call("one.system.version", "oneadmin:no"), "<i4>256</i4>"},
		{"unknown method", call("one.no.such", "oneadmin:secret"), "<fault>"},
		{"no XML", "hello", "expected on /RPC2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodPost, "/RPC2", strings.NewReader(c.body))
			(&oned{credentials: auth}).ServeHTTP(w, r)
			if !strings.Contains(w.Body.String(), c.want) {
				t.Errorf("answer %q lacks %q", w.Body.String(), c.want)
			}
		})
	}
}

func TestRecordsSurviveReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	for _, want := range []string{"ok 7\n", "ok 8\n"} {
		r, err := openRecords(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.answer(strings.Fields("append " + strings.TrimSpace(strings.TrimPrefix(want, "ok ")))); got != want {
			t.Errorf("append: got %q, want %q", got, want)
		}
		r.close()
	}
	r, err := openRecords(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if got := r.answer([]string{"list"}); got != "7\n8\nend\n" {
		t.Errorf("list: got %q", got)
	}
	if got := r.answer([]string{"count"}); got != "ok 2\n" {
		t.Errorf("count: got %q", got)
	}
	if got := r.answer([]string{"append", "x"}); !strings.HasPrefix(got, "error ") {
		t.Errorf("append of no number: got %q", got)
	}
}

// A tail that power took away in the middle of a write swallows no later record.
func TestRecordsAfterATornTail(t *testing.T) {
	for name, tail := range map[string]string{"half a number": "12", "zeros": "\x00\x00\x00\x00", "nothing": ""} {
		path := filepath.Join(t.TempDir(), "records")
		if err := os.WriteFile(path, []byte("1\n2\n"+tail), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := openRecords(path)
		if err != nil {
			t.Fatal(err)
		}
		err = r.append(3)
		text, readErr := r.read()
		r.close()
		if err != nil || readErr != nil || text != "1\n2\n3\n" {
			t.Errorf("%s: %q, %v, %v", name, text, err, readErr)
		}
	}
}

// A record that may not be on disk is shown to nobody: after a failed write nothing is answered any more.
func TestRecordsAfterAFailedWrite(t *testing.T) {
	r, err := openRecords(filepath.Join(t.TempDir(), "records"))
	if err != nil {
		t.Fatal(err)
	}
	r.close() // as a disk that fails
	for _, words := range []string{"append 1", "count", "list", "append 2"} {
		if got := r.answer(strings.Fields(words)); !strings.HasPrefix(got, "error ") {
			t.Errorf("%s: %q", words, got)
		}
	}
	select {
	case <-r.ended:
	default:
		t.Error("the front-end goes on")
	}
}
