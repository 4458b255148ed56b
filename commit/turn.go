package commit

import "context"

// heavy is how many bytes of tar a layer has before making it waits for a turn of [store.Store.Turn]: most layers are done by then.
const heavy = 4 << 20

// takeTurns has the pass over what the container changed tell how far it is, and wait for its turn when that is far, unless
// the container is frozen for it. The caller calls done behind the pass.
func (p *plan) takeTurns(ctx context.Context, tell func(int64)) (done func()) {
	var turn func()
	p.moved = func(bytes int64) { // called from one goroutine, which blocks the pass
		if turn == nil && bytes >= heavy && !p.paused {
			turn = p.st.Turn(ctx)
		}
		tell(bytes)
	}
	return func() {
		if turn != nil {
			turn()
		}
	}
}
