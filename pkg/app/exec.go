package app

import (
	"context"
	"errors"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive"
)

// execIn runs a command in a service's container, for exec probes.
func (a *App) execIn(ctx context.Context, service core.ServiceName, argv []string) (int, string, error) {
	full := append([]string{a.storage.helpers.Binary, "helper", "exec", "--service", string(service), "--volumes", a.file.VolumesDir, "--"}, argv...)
	out, err := drive.Run(ctx, full...)
	var failed *drive.Error
	if errors.As(err, &failed) && failed.Code >= 0 {
		return failed.Code, string(out), nil
	}
	return 0, string(out), err
}
