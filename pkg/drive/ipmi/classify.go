package ipmi

import (
	"errors"
	"fmt"

	"github.com/bougou/go-ipmi/pkg/client"
	"github.com/bougou/go-ipmi/pkg/types"
)

// classify turns an error of the library into one of ours.
func classify(err error) error {
	if err == nil || ours(err) {
		return err
	}
	var status *types.RmcpStatusError
	switch {
	case errors.Is(err, client.ErrRAKPAuthentication):
		return fmt.Errorf("%w (%w)", ErrPassword, err)
	case errors.As(err, &status):
		return fmt.Errorf("%w (%w)", statusMeans(status.StatusCode()), err)
	}
	if code := completion(err); code != nil {
		return fmt.Errorf("%w (%w)", completionMeans(*code), err)
	}
	return fmt.Errorf("%w (%w)", ErrUnreachable, err)
}

func ours(err error) bool {
	for _, known := range []error{
		ErrUnreachable, ErrPassword, ErrPrivilege, ErrCipher, ErrBusy, ErrRefused, ErrGUID, ErrConfig, ErrClosed,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// statusMeans follows IPMI 2.0 table 13-15.
func statusMeans(code types.RmcpStatusCode) error {
	switch uint8(code) {
	case 0x01, 0x0B:
		return ErrBusy // insufficient resources to create a session
	case 0x03, 0x04, 0x05, 0x06, 0x07, 0x10, 0x11:
		return ErrCipher // invalid or unmatched algorithm
	case 0x09, 0x0A:
		return ErrPrivilege // invalid or unauthorized role or privilege level
	case 0x0C, 0x0D, 0x0E, 0x0F:
		return ErrPassword // invalid name length, unauthorized name, GUID; invalid integrity check value
	}
	return ErrUnreachable // a session that it does not know: log in anew
}

// completionMeans follows IPMI 2.0 table 5-2.
func completionMeans(code types.CompletionCode) error {
	switch uint8(code) {
	case 0x00:
		return ErrUnreachable // the answer did not parse: ask again
	case 0xC0, 0xC3, 0xCE, 0xD2:
		return ErrBusy
	case 0xD4:
		return ErrPrivilege
	}
	return ErrRefused
}

// retryable reports whether the same question may be answered on a new session.
func retryable(err error) bool { return errors.Is(err, ErrUnreachable) }
