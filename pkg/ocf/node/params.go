package node

import (
	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/release"
)

// RunDirParam is the row that every agent has for the run directory.
func RunDirParam(v *ocf.Path) ocf.Param {
	return ocf.Param{
		Name: "run_dir", Default: release.DefaultRunDir, Value: v,
		Short: "keepone's run directory", Long: "Where keepone keeps this life's records: run_dir of the node file.",
	}
}

// SocketParam is the row that every agent has for the daemon's socket.
func SocketParam(v *ocf.Path) ocf.Param {
	return ocf.Param{
		Name: "socket", Value: v,
		Short: "keeponed's socket", Long: "The socket that keeponed listens on. Empty: keeponed.sock in the run directory.",
	}
}
