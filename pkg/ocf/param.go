package ocf

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Param is one row of an agent's table: it reads OCF_RESKEY_<Name>, and is a parameter of the metadata.
type Param struct {
	Name     string
	Short    string
	Long     string
	Default  string
	Required bool
	Unique   bool // no two resources may have the same value
	Value    Value
}

// Value is where a parameter's text goes to. Set says what is wrong with it.
type Value interface {
	Type() string // of the metadata: string or integer, which every schema knows
	Set(text string) error
}

// Text takes any text without control characters.
type Text string

// Type is string.
func (*Text) Type() string { return "string" }

// Set takes the text.
func (v *Text) Set(text string) error {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) {
		return errors.New("holds a control character")
	}
	*v = Text(text)
	return nil
}

// Name takes what can be a file's name: it becomes part of paths.
type Name string

// Type is string.
func (*Name) Type() string { return "string" }

// Set takes the name.
func (v *Name) Set(text string) error {
	if strings.HasPrefix(text, ".") || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == '/' }) {
		return errors.New("is no name: no slash, no blank, no leading dot")
	}
	*v = Name(text)
	return nil
}

// Path takes an absolute path, or nothing.
type Path string

// Type is string.
func (*Path) Type() string { return "string" }

// Set takes the path, cleaned.
func (v *Path) Set(text string) error {
	if text == "" {
		*v = ""
		return nil
	}
	if !filepath.IsAbs(text) || strings.ContainsRune(text, 0) {
		return errors.New("is no absolute path")
	}
	*v = Path(filepath.Clean(text))
	return nil
}

// Choice takes one of some words.
type Choice struct {
	Of   []string
	Word string
}

// Type is string: not every schema knows select.
func (*Choice) Type() string { return "string" }

// Set takes the word.
func (v *Choice) Set(text string) error {
	if !slices.Contains(v.Of, text) {
		return fmt.Errorf("is none of: %s", strings.Join(v.Of, ", "))
	}
	v.Word = text
	return nil
}

// Seconds takes a whole number of seconds.
type Seconds time.Duration

// Type is integer.
func (*Seconds) Type() string { return "integer" }

// Set takes the number.
func (v *Seconds) Set(text string) error {
	const most = 24 * 60 * 60
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		return fmt.Errorf("is no number of seconds from 0 to %d", most)
	}
	*v = Seconds(time.Duration(n) * time.Second)
	return nil
}

// read takes every parameter from the environment. What is wrong is wrong wherever the resource is tried.
func (a *Agent) read(getenv func(string) string) error {
	for _, p := range a.Params {
		text := getenv("OCF_RESKEY_" + p.Name)
		if text == "" {
			text = p.Default
		}
		if text == "" && p.Required {
			return Fail(ErrConfigured, "parameter %s is missing: %s", p.Name, p.Short)
		}
		if err := p.Value.Set(text); err != nil {
			return Fail(ErrConfigured, "parameter %s is %q: it %v", p.Name, text, err)
		}
	}
	return nil
}
