package ipmi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
)

func TestSecretNeverPrints(t *testing.T) {
	cfg := ipmi.Config{Address: "bmc", Password: ipmi.Password(testPassword)}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", cfg.Password, "cfg", cfg.Password)
	asJSON, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	said := fmt.Sprintf("%v %+v %#v %s %q %x %v", cfg, cfg, cfg, cfg.Password, cfg.Password, cfg.Password, &cfg) +
		log.String() + string(asJSON)
	if strings.Contains(said, testPassword) || !strings.Contains(said, "(secret)") {
		t.Error(said)
	}
}

func TestNewRefuses(t *testing.T) {
	good := ipmi.Config{Address: "bmc", User: "u", Password: ipmi.Password("p"), CipherSuite: 17}
	for name, change := range map[string]func(*ipmi.Config){
		"no address":     func(c *ipmi.Config) { c.Address = "" },
		"bad port":       func(c *ipmi.Config) { c.Address = "bmc:x" },
		"port too high":  func(c *ipmi.Config) { c.Address = "bmc:70000" },
		"long user":      func(c *ipmi.Config) { c.User = "12345678901234567" },
		"no password":    func(c *ipmi.Config) { c.Password = nil },
		"no encryption":  func(c *ipmi.Config) { c.CipherSuite = 2 },
		"no suite given": func(c *ipmi.Config) { c.CipherSuite = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			change(&cfg)
			if _, err := ipmi.New(cfg); !errors.Is(err, ipmi.ErrConfig) {
				t.Errorf("err = %v", err)
			}
		})
	}
	for _, address := range []string{"bmc", "10.0.0.1:6230", "[fd00::1]", "[fd00::1]:623", "fd00::1"} {
		cfg := good
		cfg.Address = address
		if _, err := ipmi.New(cfg); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestSameGUID(t *testing.T) {
	const wire = "00112233445566778899aabbccddeeff"
	for written, want := range map[string]bool{
		wire:                                   true,
		"00112233-4455-6677-8899-AABBCCDDEEFF": true,
		"33221100-5544-7766-8899-aabbccddeeff": true, // SMBIOS
		"ffeeddcc-bbaa-9988-7766-554433221100": true, // IPMI
		"00112233-4455-6677-8899-aabbccddeefe": false,
		"0011":                                 false,
		"":                                     false,
	} {
		if got := ipmi.SameGUID(wire, written); got != want {
			t.Errorf("SameGUID(%q) = %v", written, got)
		}
	}
	for _, none := range []string{"", strings.Repeat("0", 32), strings.Repeat("f", 32), "not a guid"} {
		if ipmi.SameGUID(none, none) {
			t.Errorf("%q tells a machine apart", none)
		}
	}
}
