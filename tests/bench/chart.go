package main

import (
	"bytes"
	"fmt"
	"html"
	"strings"
)

// chart draws the median wall times as bars, each row on a scale of its own: the slowest contender fills the width.
func chart(results []*result) []byte {
	const width, left, right, step = 860, 150, 110, 18
	var body bytes.Buffer
	y := 10
	for _, res := range results {
		var slowest float64
		shown := 0
		for _, c := range res.row.contenders {
			if t := wallTime.of(res.runs[c.name]); t > 0 {
				slowest, shown = max(slowest, t), shown+1
			}
		}
		if shown < 2 || strings.HasPrefix(res.row.name, "start") {
			continue
		}
		y += 24
		fmt.Fprintf(&body, `<text x="10" y="%d" class="work">%s</text>`+"\n", y, html.EscapeString(res.row.name))
		y += 8
		for _, c := range res.row.contenders {
			runs := res.runs[c.name]
			if len(runs) == 0 {
				continue
			}
			class := "peer"
			if strings.HasPrefix(c.name, "kimg") {
				class = "kimg"
			}
			long := max(1, wallTime.of(runs)/slowest*(width-left-right))
			fmt.Fprintf(&body, `<text x="%d" y="%d" text-anchor="end">%s</text><rect x="%d" y="%d" width="%.1f" height="%d" class="%s"/><text x="%.1f" y="%d">%s</text>`+"\n",
				left-6, y+13, html.EscapeString(c.name), left, y+2, long, step-4, class, left+long+6, y+13, duration(middle(wall(runs))))
			y += step
		}
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">
<title>Median wall times of commits: kimg, the floor and buildah; each group has its own scale</title>
<style>text{font:12px sans-serif;fill:#24292f}.work{font-weight:bold}.kimg{fill:#1f7a4d}.peer{fill:#9aa4ae}</style>
<rect width="100%%" height="100%%" fill="#ffffff"/>
`, width, y+20, width, y+20)
	out.Write(body.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}
