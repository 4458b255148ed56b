package commit

import (
	"context"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/internal/freezer"
)

// pause freezes the container if that is wanted and somebody runs it. Not being able to is a warning.
func (p *plan) pause(ctx context.Context) error {
	p.thaw = func() {}
	if !p.o.Pause {
		return nil
	}
	pid, err := p.container.Running()
	if err != nil || pid == 0 {
		return err
	}
	log := p.o.Logger
	thaw, err := freezer.Freeze(ctx, pid, p.container.ID)
	if err != nil {
		log.WarnContext(ctx, "the container is not paused", "container", p.container.Name, "error", kimg.Line(err))
		return kimg.Wrap("", context.Cause(ctx))
	}
	p.paused = true
	p.thaw = func() {
		if err := thaw(); err != nil {
			log.ErrorContext(ctx, "the container stays frozen", "container", p.container.Name, "error", kimg.Line(err))
		}
	}
	return nil
}
