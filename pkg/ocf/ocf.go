// Package ocf is the resource agent API 1.1 of the Open Cluster Framework, as Pacemaker calls it: verbs, exit codes,
// exit reasons, parameters and metadata. One table per agent both reads the parameters and makes the metadata. What
// an agent does is its own.
package ocf

import (
	"errors"
	"fmt"
)

// Code is an agent's exit code. Sources: OCF resource agent API 1.1, "Actions' exit status"; Pacemaker Explained,
// "How OCF Return Codes Are Interpreted".
type Code int

// The exit codes. Soft errors are tried again, here or elsewhere; hard ones elsewhere only; fatal ones nowhere.
const (
	Success          Code = 0
	ErrGeneric       Code = 1 // soft
	ErrArgs          Code = 2 // hard: a parameter's value is of no use on this node
	ErrUnimplemented Code = 3 // hard
	ErrPerm          Code = 4 // hard
	ErrInstalled     Code = 5 // hard: this node lacks something, or may not
	ErrConfigured    Code = 6 // fatal: the resource is set up wrongly, wherever it is tried
	NotRunning       Code = 7 // certainly stopped: no error of a monitor
	RunningPromoted  Code = 8
	FailedPromoted   Code = 9 // promoted and broken
)

var codeNames = map[Code]string{
	Success: "OCF_SUCCESS", ErrGeneric: "OCF_ERR_GENERIC", ErrArgs: "OCF_ERR_ARGS",
	ErrUnimplemented: "OCF_ERR_UNIMPLEMENTED", ErrPerm: "OCF_ERR_PERM", ErrInstalled: "OCF_ERR_INSTALLED",
	ErrConfigured: "OCF_ERR_CONFIGURED", NotRunning: "OCF_NOT_RUNNING",
	RunningPromoted: "OCF_RUNNING_PROMOTED", FailedPromoted: "OCF_FAILED_PROMOTED",
}

// String is the code's name in the standard.
func (c Code) String() string {
	if name, ok := codeNames[c]; ok {
		return name
	}
	return fmt.Sprintf("exit code %d", int(c))
}

// Verb is what an agent is asked to do.
type Verb string

// The verbs that keepone's agents know.
const (
	Start       Verb = "start"
	Stop        Verb = "stop"
	Monitor     Verb = "monitor"
	Promote     Verb = "promote"
	Demote      Verb = "demote"
	Notify      Verb = "notify"
	ReloadAgent Verb = "reload-agent"
	ValidateAll Verb = "validate-all"
	MetaData    Verb = "meta-data"
)

// Role restricts a monitor to one role of a promotable clone.
type Role string

// The roles.
const (
	Promoted   Role = "Promoted"
	Unpromoted Role = "Unpromoted"
)

// Failure is an error with the exit code that says how Pacemaker is to take it. Its words are the exit reason.
type Failure struct {
	Code   Code
	Reason string
}

func (f *Failure) Error() string { return f.Reason }

// Fail makes a Failure.
func Fail(code Code, format string, args ...any) error {
	return &Failure{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// CodeOf returns the exit code of an error: ErrGeneric if nothing in it says another.
func CodeOf(err error) Code {
	var f *Failure
	switch {
	case err == nil:
		return Success
	case errors.As(err, &f):
		return f.Code
	default:
		return ErrGeneric
	}
}
