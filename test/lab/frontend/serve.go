package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
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
	server := &http.Server{Handler: &oned{credentials: filepath.Join(dir, ".one", "one_auth")}, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 2)
	go func() { ended <- server.Serve(calls) }()
	go func() { ended <- log.serve(records) }()
	select {
	case <-ctx.Done():
		err = nil
	case err = <-ended:
	}
	return errors.Join(err, server.Close(), ignoreClosed(records.Close()))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
