package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"
)

// update has the metadata written anew, to be read before it is kept: make golden.
var update = os.Getenv("GOLDEN") == "write"

// told is defaults with a change.
func told(change func(*options)) options {
	o := defaults()
	change(&o)
	return o
}

func TestParseStdin(t *testing.T) {
	for name, row := range map[string]struct {
		text    string
		want    options
		ignored int
		says    string // of an error
	}{
		"as Pacemaker gives it": {text: "nodename=Node1.example.com\nport=n1\naction=reboot\nagent=fence_keepone\ncrm_feature_set=3.16.1\n", want: told(func(o *options) {
			o.Action, o.Plug, o.Port, o.Nodename = ActionReboot, "n1", "n1", "Node1.example.com"
		})},
		"plug goes first": {text: "nodename=n3\nport=n2\nplug=n1\naction=off", want: told(func(o *options) {
			o.Action, o.Plug, o.Port, o.Nodename = ActionOff, "n1", "n2", "n3"
		})},
		"nodename alone": {text: "option=OFF\nnodename=n3\n", want: told(func(o *options) {
			o.Action, o.Plug, o.Nodename = ActionOff, "n3", "n3"
		})},
		"comments, spaces, twice": {text: "# action=off\n\n  action=status  \naction=monitor\nno line\ndelay=3\n", ignored: 1, want: told(func(o *options) {
			o.Action, o.Delay = ActionMonitor, 3*time.Second
		})},
		"times": {text: "action=list\npower_timeout=30s\nshell_timeout=2\nlogin_timeout=7\nalone_delay=0\nverbose=1\nquiet=0\nmethod=onoff\nnode_file=/x", want: told(func(o *options) {
			o.Action, o.PowerTimeout, o.ShellTimeout, o.LoginTimeout, o.AloneDelay = ActionList, 30*time.Second, 2*time.Second, 7*time.Second, 0
			o.Verbose, o.NodeFile = true, "/x"
		})},
		"synonyms of actions": {text: "action=meta-data", want: told(func(o *options) { o.Action = ActionMetadata })},
		"no node":             {text: "action=off\n", says: "plug=NAME"},
		"default needs one":   {text: "", says: "action reboot needs a node"},
		"bad action":          {text: "action=explode\nplug=n1", says: `"explode" is not one of`},
		"cycle":               {text: "action=reboot\nplug=n1\nmethod=cycle", says: "only onoff"},
		"bad time":            {text: "action=off\nplug=n1\npower_timeout=soon", says: `option power_timeout: wrong use: "soon"`},
		"endless":             {text: "action=off\nplug=n1\npower_timeout=0", says: "above 0"},
		"negative":            {text: "action=off\nplug=n1\ndelay=-1", says: "from 0 to"},
		"bad node":            {text: "action=off\nplug=../n1", says: "pcmk_host_map"},
		"bad boolean":         {text: "action=list\nverbose=maybe", says: "neither 1 nor 0"},
		"too much":            {text: strings.Repeat("#", maxInput+1), says: "bytes on stdin"},
	} {
		t.Run(name, func(t *testing.T) {
			got, ignored, err := parseStdin(strings.NewReader(row.text))
			check(t, got, row.want, err, row.says)
			if row.says == "" && len(ignored) != row.ignored {
				t.Errorf("ignored %q", ignored)
			}
		})
	}
}

func check(t *testing.T, got, want options, err error, says string) {
	t.Helper()
	switch {
	case says != "":
		if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v does not say %q", err, says)
		}
	case err != nil:
		t.Error(err)
	case got != want:
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParseArgs(t *testing.T) {
	off := told(func(o *options) { o.Action, o.Plug = ActionOff, "n1" })
	for name, row := range map[string]struct {
		args []string
		want options
		says string
	}{
		"long":         {args: []string{"--action=off", "--plug=n1"}, want: off},
		"long, apart":  {args: []string{"--action", "off", "--plug", "n1"}, want: off},
		"short":        {args: []string{"-o", "off", "-n", "n1"}, want: off},
		"short, close": {args: []string{"-ooff", "-nn1"}, want: off},
		"delay":        {args: []string{"-o", "off", "-n", "n1", "-d", "4", "-v"}, want: told(func(o *options) { o.Action, o.Plug, o.Delay, o.Verbose = ActionOff, "n1", 4*time.Second, true })},
		"hyphens":      {args: []string{"-o", "list", "--power-timeout=9"}, want: told(func(o *options) { o.Action, o.PowerTimeout = ActionList, 9*time.Second })},
		"help":         {args: []string{"-h"}, want: told(func(o *options) { o.Help = true })},
		"unknown":      {args: []string{"--plugs=n1"}, says: "--help"},
		"no option":    {args: []string{"off"}, says: `"off" is not known`},
		"no value":     {args: []string{"--plug"}, says: "needs a value"},
		"no node":      {args: []string{"-o", "status"}, says: "--plug=NAME"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseArgs(row.args)
			check(t, got, row.want, err, row.says)
		})
	}
}

// TestNoSecretsAsOptions: a password must have no way into argv or stdin.
func TestNoSecretsAsOptions(t *testing.T) {
	for _, row := range table {
		for _, secret := range []string{"pass", "login", "user", "secret"} {
			if strings.HasPrefix(row.name, secret) && row.name != "login_timeout" {
				t.Errorf("option %s", row.name)
			}
		}
	}
}

func TestMetadata(t *testing.T) {
	var got bytes.Buffer
	printMetadata(&got)
	const golden = "testdata/metadata.xml"
	if update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || !bytes.Equal(want, got.Bytes()) {
		t.Errorf("the metadata is not that of %s (%v):\n%s", golden, err, got.String())
	}
	const schema = "/usr/share/cluster/relaxng/metadata.rng"
	if _, err := os.Stat(schema); err != nil {
		t.Skip("fence-agents-common is not installed: not held against its schema")
	}
	xmllint, err := exec.LookPath("xmllint")
	if err != nil {
		t.Skip("xmllint is not installed: not held against the schema")
	}
	if out, err := exec.CommandContext(t.Context(), xmllint, "--noout", "--relaxng", schema, golden).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestQuorate(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	yes := read("quorate.txt")
	for name, row := range map[string]struct {
		text string
		want bool
	}{
		"yes":        {yes, true},
		"no":         {read("not-quorate.txt"), false},
		"no answer":  {"Cannot initialize CMAP service\n", false},
		"nothing":    {"", false},
		"twice":      {yes + yes, false},
		"yes and no": {yes + "Quorate:          No\n", false},
		"a flag":     {"Flags:            Quorate\n", false},
		"cut off":    {"Quorate:          Ye", false},
	} {
		if got := quorate(row.text); got != row.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// FuzzOptions: whatever is given, the parsers end, and what they accept is bounded and names a node where one is needed.
func FuzzOptions(f *testing.F) {
	f.Add("action=off\nplug=n1\n")
	f.Add("-o\noff\n-nn1\n--delay=3")
	f.Add("option=reboot\nnodename=n2\npower_timeout=20s\n#x\n\n=\n")
	f.Fuzz(func(t *testing.T, text string) {
		o, _, err := parseStdin(strings.NewReader(text))
		again, _, err2 := parseStdin(strings.NewReader(text))
		if !reflect.DeepEqual(o, again) || (err == nil) != (err2 == nil) {
			t.Error("two readings differ")
		}
		args, argsErr := parseArgs(strings.Split(text, "\n"))
		for _, got := range []struct {
			o   options
			err error
		}{{o, err}, {args, argsErr}} {
			if got.err != nil {
				continue
			}
			if got.o.PowerTimeout > maxSeconds*time.Second || (got.o.PowerTimeout <= 0 && !got.o.Help && !got.o.Version) {
				t.Errorf("power_timeout %s", got.o.PowerTimeout)
			}
			if got.o.Plug == "" && !got.o.Help && !got.o.Version && (got.o.Action == ActionOff || got.o.Action == ActionReboot) {
				t.Errorf("%s without a node", got.o.Action)
			}
		}
	})
}
