package vmlab

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// monitorBound is for qemu to stop or start a processor.
const monitorBound = 10 * time.Second

// monitor gives qemu one order over its machine protocol (QMP).
func monitor(ctx context.Context, socket, order string) error {
	ctx, cancel := context.WithTimeout(ctx, monitorBound)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("reach qemu: %w", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	in := json.NewDecoder(conn)
	var greeting struct {
		QMP json.RawMessage `json:"QMP"`
	}
	if err := in.Decode(&greeting); err != nil || greeting.QMP == nil {
		return fmt.Errorf("reach qemu: no greeting: %w", err)
	}
	for _, name := range []string{"qmp_capabilities", order} {
		if _, err := fmt.Fprintf(conn, "{\"execute\":%q}\n", name); err != nil {
			return fmt.Errorf("tell qemu %s: %w", name, err)
		}
		if err := answer(in); err != nil {
			return fmt.Errorf("tell qemu %s: %w", name, err)
		}
	}
	return nil
}

// answer reads past events.
func answer(in *json.Decoder) error {
	for {
		var said struct {
			Return json.RawMessage `json:"return"`
			Error  struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		if err := in.Decode(&said); err != nil {
			return err
		}
		if said.Error.Desc != "" {
			return fmt.Errorf("it says %q", said.Error.Desc)
		}
		if said.Return != nil {
			return nil
		}
	}
}
