package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// serve runs both servers until ctx ends.
func serve(ctx context.Context, dir string) error {
	log, err := openRecords(filepath.Join(dir, "records"))
	if err != nil {
		return err
	}
	defer log.close()
	records, err := net.Listen("tcp", ":2634")
	if err != nil {
		return fmt.Errorf("listen for records: %w", err)
	}
	calls, err := net.Listen("tcp", ":2633")
	if err != nil {
		return errors.Join(fmt.Errorf("listen for calls: %w", err), records.Close())
	}
	pages := http.NewServeMux()
	pages.Handle("/", &oned{credentials: filepath.Join(dir, ".one", "one_auth")})
	pages.HandleFunc("GET /well", well)
	server := &http.Server{Handler: pages, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 2)
	go func() { ended <- server.Serve(calls) }()
	go func() { ended <- log.serve(records) }()
	select {
	case <-ctx.Done():
		err = nil
	case err = <-ended:
	case <-log.ended:
		err = fmt.Errorf("write records: %w", log.broken)
	}
	return errors.Join(err, server.Close(), ignoreClosed(records.Close()))
}

// wellFile is there while somebody in the container says that all is well. It is in memory, so that each life of the
// container begins without it.
const wellFile = "/tmp/well"

// well is a page for probes that know nothing of XML-RPC.
func well(w http.ResponseWriter, _ *http.Request) {
	if _, err := os.Stat(wellFile); err != nil {
		http.Error(w, "not well: "+wellFile+" is missing", http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "well\n")
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
