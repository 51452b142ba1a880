package cases

import (
	"context"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

// caseLimit bounds one case: forming takes 10 s, and each takeover a few more.
const caseLimit = 150 * time.Second

// needs are the product's programs.
var needs = []string{"keeponed", "keepone", "keepone-guard", lab.FrontendProgram}

// kind says what a case's lab is like.
type kind struct {
	nodes  int
	spread bool
	bare   bool // no volume and no running service: the case makes its own
	edit   edit // of the document, nil: none
}

// add registers a case that gets a formed cluster.
func add(name string, k kind, run func(ctx context.Context, c *cluster) error) {
	lab.Register(lab.Case{
		Name: name, Nodes: k.nodes, CephSpread: k.spread, Limit: caseLimit, Needs: needs,
		Run: func(ctx context.Context, t *lab.T) error {
			begin := form
			if k.bare {
				begin = prepare
			}
			var edits []edit
			if k.edit != nil {
				edits = append(edits, k.edit)
			}
			c, err := begin(ctx, t.Lab, edits...)
			if err != nil {
				return err
			}
			return run(ctx, c)
		},
	})
}
