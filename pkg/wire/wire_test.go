package wire

import (
	"bytes"
	"errors"
	"math"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

func entryOf(c core.Command) core.Entry {
	return core.Entry{At: 7, Wall: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), By: "a", Command: c}
}

// Every kind of command, empty and filled, comes back as it was.
func TestEntryRoundTrip(t *testing.T) {
	for _, kind := range core.Kinds() {
		empty, _ := core.NewCommand(kind)
		filled, _ := core.NewCommand(kind)
		fill(reflect.ValueOf(filled).Elem(), 0)
		for _, c := range []core.Command{value(empty), value(filled)} {
			want := entryOf(c)
			data, err := EncodeEntry(want)
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			got, err := DecodeEntry(data)
			if err != nil {
				t.Fatalf("%s: %v\n%s", kind, err, data)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s:\n got %+v\nwant %+v", kind, got, want)
			}
			raw, err := EncodeCommand(c)
			if err != nil {
				t.Fatal(err)
			}
			if back, err := DecodeCommand(raw); err != nil || !reflect.DeepEqual(back, c) {
				t.Errorf("%s: command %+v, %v", kind, back, err)
			}
		}
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	var want core.State
	fill(reflect.ValueOf(&want).Elem(), 0)
	data, err := EncodeSnapshot(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSnapshot(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for _, at := range []int{0, len(snapshotMagic), snapshotHeader - 1, len(data) - 1} {
		broken := bytes.Clone(data)
		broken[at] ^= 1
		if _, err := DecodeSnapshot(broken); err == nil {
			t.Errorf("byte %d is wrong and nobody noticed", at)
		}
	}
}

// fill sets every exported field to something that is not its zero value.
func fill(v reflect.Value, depth int) {
	if depth > 8 {
		return
	}
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)
		return
	case *netip.Addr:
		*x = netip.MustParseAddr("fd00::1")
		return
	case *netip.Prefix:
		*x = netip.MustParsePrefix("10.0.0.1/24")
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i), depth+1)
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, one := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, depth+1)
		fill(one, depth+1)
		v.SetMapIndex(key, one)
	case reflect.String:
		v.SetString("x <&> \u2028 ü")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(math.MaxInt32)
	case reflect.Uint8, reflect.Uint32:
		v.SetUint(200)
	case reflect.Uint64, reflect.Uint:
		v.SetUint(math.MaxUint64)
	}
}

func TestDecodeEntryRefuses(t *testing.T) {
	for name, row := range map[string]struct {
		data string
		want error
	}{
		"nothing":       {"", ErrMalformed},
		"version":       {"\x02{}", ErrVersion},
		"kind":          {"\x01" + `{"kind":"from-the-future","at":0,"wall":"2026-01-01T00:00:00Z","by":"a","body":{}}`, ErrUnknownKind},
		"unknown field": {"\x01" + `{"kind":"leave","at":0,"wall":"2026-01-01T00:00:00Z","by":"a","body":{"Node":"b","New":1}}`, ErrMalformed},
		"outer field":   {"\x01" + `{"kind":"leave","x":0,"body":{}}`, ErrMalformed},
		"null body":     {"\x01" + `{"kind":"leave","at":0,"wall":"2026-01-01T00:00:00Z","by":"a","body":null}`, ErrMalformed},
		"no body":       {"\x01" + `{"kind":"leave","at":0,"wall":"2026-01-01T00:00:00Z","by":"a"}`, ErrMalformed},
		"more behind":   {"\x01" + `{"kind":"leave","at":0,"wall":"2026-01-01T00:00:00Z","by":"a","body":{}}{}`, ErrMalformed},
		"too large":     {"\x01" + string(make([]byte, MaxEntry)), ErrTooLarge},
	} {
		if _, err := DecodeEntry([]byte(row.data)); !errors.Is(err, row.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEncodeIsBounded(t *testing.T) {
	big := entryOf(core.Configure{Document: core.Document{Text: string(bytes.Repeat([]byte("x"), MaxEntry))}})
	if _, err := EncodeEntry(big); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if _, err := EncodeEntry(core.Entry{}); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for _, kind := range core.Kinds() {
		c, _ := core.NewCommand(kind)
		data, err := EncodeEntry(entryOf(value(c)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := DecodeEntry(data)
		if err != nil {
			return
		}
		again, err := EncodeEntry(e)
		if err != nil {
			t.Skip() // a year beyond 9999, or grown beyond the bound
		}
		back, err := DecodeEntry(again)
		if err != nil {
			t.Fatalf("%v\n%q", err, again)
		}
		if !reflect.DeepEqual(back, e) {
			t.Fatalf("%+v\n%+v", e, back)
		}
	})
}

func FuzzDecodeSnapshot(f *testing.F) {
	data, err := EncodeSnapshot(core.State{Cluster: "x"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := DecodeSnapshot(data); err == nil {
			if _, err := EncodeSnapshot(s); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzDecodeCommand is what a member forwards to the leader.
func FuzzDecodeCommand(f *testing.F) {
	for _, kind := range core.Kinds() {
		c, _ := core.NewCommand(kind)
		data, err := EncodeCommand(value(c))
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := DecodeCommand(data)
		if err != nil {
			return
		}
		again, err := EncodeCommand(c)
		if err != nil {
			t.Skip() // grown beyond the bound
		}
		back, err := DecodeCommand(again)
		if err != nil || !reflect.DeepEqual(back, c) {
			t.Fatalf("%v\n%+v\n%+v", err, c, back)
		}
		_, _ = core.Apply(core.State{}, core.Entry{Command: c}) // whatever is in it, a member that applies it lives
	})
}
