package ipmi_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
)

const (
	testUser     = "keepone"
	testPassword = "s3cret-of-test"
)

// rig is a BMC under test, fake or real.
type rig struct {
	address string
	guid    string // as the BMC reports it, empty: none
	set     func(on bool)
	on      func() bool
	dead    func(bool)          // answers nothing while true
	slow    func(time.Duration) // answers a status this late
}

// rigs starts a BMC with a GUID of 32 digits, or without one.
type rigs func(t *testing.T, guid string) rig

const testGUID = "a123456789abcdefa123456789abcd01"

func open(t *testing.T, r rig, change func(*ipmi.Config)) *ipmi.BMC {
	t.Helper()
	cfg := ipmi.Config{
		Address: r.address, User: testUser, Password: ipmi.Password(testPassword), CipherSuite: 3,
		Limit: 3 * time.Second, Try: time.Second,
	}
	if change != nil {
		change(&cfg)
	}
	bmc, err := ipmi.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bmc.Close() })
	return bmc
}

func wantPower(t *testing.T, bmc *ipmi.BMC, want ipmi.State) {
	t.Helper()
	reading, err := bmc.Power(t.Context())
	if err != nil || reading.State != want || reading.At == 0 {
		t.Fatalf("Power = %+v, %v; want %s", reading, err, want)
	}
}

// within runs f and fails if it took longer than most.
func within(t *testing.T, most time.Duration, f func() error) error {
	t.Helper()
	begin := time.Now()
	err := f()
	if took := time.Since(begin); took > most {
		t.Errorf("took %s, more than %s (%v)", took, most, err)
	}
	return err
}

// testBMC is the table that every BMC passes, the fake and the real one alike.
func testBMC(t *testing.T, start rigs) {
	t.Run("power is read, ordered off and on", func(t *testing.T) {
		r := start(t, testGUID)
		bmc := open(t, r, nil)
		wantPower(t, bmc, ipmi.On)
		if err := bmc.Off(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantPower(t, bmc, ipmi.Off)
		if r.on() {
			t.Error("the machine is still on")
		}
		if err := bmc.Off(t.Context()); err != nil {
			t.Errorf("off of a machine that is off: %v", err)
		}
		if err := bmc.On(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantPower(t, bmc, ipmi.On)
		r.set(false)
		wantPower(t, bmc, ipmi.Off)
	})
	t.Run("identity", func(t *testing.T) {
		bmc := open(t, start(t, testGUID), nil)
		report, err := bmc.Check(t.Context())
		if err != nil || !ipmi.SameGUID(report.GUID, testGUID) || report.Power.State != ipmi.On {
			t.Errorf("Check = %+v, %v", report, err)
		}
	})
	t.Run("no identity", func(t *testing.T) {
		bmc := open(t, start(t, ""), nil)
		if guid, err := bmc.Identity(t.Context()); !errors.Is(err, ipmi.ErrGUID) || guid != "" {
			t.Errorf("Identity = %q, %v", guid, err)
		}
		if report, err := bmc.Check(t.Context()); err != nil || report.GUID != "" || report.Power.State != ipmi.On {
			t.Errorf("Check = %+v, %v", report, err)
		}
	})
	t.Run("wrong password is known at once and not tried again", func(t *testing.T) {
		r := start(t, testGUID)
		asked := 0
		bmc := open(t, r, func(c *ipmi.Config) {
			c.Password = func() (string, error) { asked++; return "wrong", nil }
		})
		for range 3 {
			err := within(t, 500*time.Millisecond, func() error { _, err := bmc.Power(t.Context()); return err })
			if !errors.Is(err, ipmi.ErrPassword) {
				t.Fatalf("err = %v", err)
			}
		}
		if asked != 1 {
			t.Errorf("tried %d times: BMCs lock accounts", asked)
		}
	})
	t.Run("wrong user", func(t *testing.T) {
		bmc := open(t, start(t, testGUID), func(c *ipmi.Config) { c.User = "nobody" })
		if _, err := bmc.Power(t.Context()); !errors.Is(err, ipmi.ErrPassword) {
			t.Errorf("err = %v", err)
		}
	})
	t.Run("dead, then alive", func(t *testing.T) { testDead(t, start(t, testGUID)) })
	t.Run("cancel while dead", func(t *testing.T) { testCancel(t, start(t, testGUID)) })
	t.Run("slow", func(t *testing.T) {
		r := start(t, testGUID)
		bmc := open(t, r, nil)
		r.slow(300 * time.Millisecond)
		wantPower(t, bmc, ipmi.On)
	})
	t.Run("calls are serialised", func(t *testing.T) {
		bmc := open(t, start(t, testGUID), nil)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if _, err := bmc.Power(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
	t.Run("closed", func(t *testing.T) {
		bmc := open(t, start(t, testGUID), nil)
		wantPower(t, bmc, ipmi.On)
		_ = bmc.Close()
		if _, err := bmc.Power(t.Context()); !errors.Is(err, ipmi.ErrClosed) {
			t.Errorf("err = %v", err)
		}
	})
}

func testDead(t *testing.T, r rig) {
	bmc := open(t, r, func(c *ipmi.Config) { c.Limit, c.Try = 800*time.Millisecond, 300*time.Millisecond })
	wantPower(t, bmc, ipmi.On)
	r.dead(true)
	for range 2 { // with a session and without
		err := within(t, time.Second, func() error { _, err := bmc.Power(t.Context()); return err })
		if !errors.Is(err, ipmi.ErrUnreachable) {
			t.Fatalf("err = %v", err)
		}
		if !strings.Contains(err.Error(), r.address) || strings.Contains(err.Error(), testPassword) {
			t.Errorf("error names no address, or the password: %v", err)
		}
	}
	r.dead(false)
	wantPower(t, bmc, ipmi.On)
}

func testCancel(t *testing.T, r rig) {
	bmc := open(t, r, nil)
	wantPower(t, bmc, ipmi.On)
	r.dead(true)
	before := runtime.NumGoroutine()
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := within(t, 200*time.Millisecond, func() error { _, err := bmc.Power(ctx); return err })
		cancel()
		if !errors.Is(err, ipmi.ErrUnreachable) {
			t.Errorf("deadline: err = %v", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		stop := time.AfterFunc(30*time.Millisecond, cancel)
		err = within(t, 200*time.Millisecond, func() error { return bmc.Off(ctx) })
		stop.Stop()
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancel: err = %v", err)
		}
	}
	_ = bmc.Close() // joins what was left behind
	if after := runtime.NumGoroutine(); after > before+2 {
		t.Errorf("goroutines grew from %d to %d", before, after)
	}
}
