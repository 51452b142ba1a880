package app

import (
	"errors"
	"fmt"
	"testing"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/replica"
)

func TestRefusal(t *testing.T) {
	applied := fmt.Errorf("apply join: the token has expired: %w", core.ErrRefused)
	for text, err := range map[string]error{
		"the token has expired":          fmt.Errorf("propose join: %w: %w", replica.ErrRefused, applied),
		"refused by b: no word of apply": errors.New("refused by b: no word of apply"),
		"refused by b: not for n1":       fmt.Errorf("%w by b: not for n1: refused", replica.ErrRefused),
	} {
		if got := refusal(err); got != text {
			t.Errorf("%q is worded %q, want %q", err, got, text)
		}
	}
}
