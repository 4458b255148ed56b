//go:build linux

package userns

import (
	"fmt"
	"strings"
	"testing"
)

func TestEnterMapsAllIDs(t *testing.T) {
	u := mapped(t)
	m, err := planMaps(u.uid, u.gid)
	if err != nil || m.single != "" {
		t.Fatalf("the test user has no ids: %v %s", err, m.single)
	}
	text := func(list []extent) string {
		var out []string
		for _, e := range list {
			out = append(out, fmt.Sprint(e.inside, e.outside, e.size))
		}
		return strings.Join(out, " ")
	}
	want := fmt.Sprintf("0 0\n%s\n%s\ntrue %d %d", text(m.uids), text(m.gids), u.uid, u.gid)
	if got := u.ok(t, "who"); got != want {
		t.Errorf("in a new namespace:\n%s\nwant:\n%s", got, want)
	}
	if got := u.ok(t, "keep-who"); got != want {
		t.Errorf("in a kept namespace:\n%s\nwant:\n%s", got, want)
	}
}
